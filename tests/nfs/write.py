"""A producer's program that writes in place: python write.py TARGET COPY CHUNK COUNT PAUSE [sync].

Appends COUNT chunks of CHUNK bytes, with a pause of PAUSE seconds after each; `sync` hands each to the server at once,
otherwise the kernel holds it back. The same goes to COPY, for comparison.
"""

import os
import random
import sys
import time

target, copy, chunk, count, pause, *sync = sys.argv[1:]
with open(target, "wb", buffering=0) as file, open(copy, "wb") as other:
    for _ in range(int(count)):
        data = random.randbytes(int(chunk))
        file.write(data)
        other.write(data)
        if sync:
            os.fsync(file.fileno())
        time.sleep(float(pause))
