"""`make cluster`: build both images, bring them into the cluster that KUBECONFIG names, and run the tests there."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.kubernetes.cluster import AZURITE_IMAGE, OUR_IMAGE
from tests.kubernetes.missing import for_the_cluster, for_the_images, load_command
from tests.support.image import Builder
from tests.support.programs import TOP

IMAGES = {OUR_IMAGE: "localhost/nfs-watch:cluster", AZURITE_IMAGE: "localhost/azurite:cluster"}


def load(builder: Builder, image: str) -> None:
    """Give the image's archive to the cluster."""
    with tempfile.TemporaryDirectory() as folder:
        archive = Path(folder, "image.tar")
        builder("push", "--quiet", image, f"docker-archive:{archive}:{image}")
        subprocess.run([*load_command(os.environ), archive], check=True)


def main(argv: list[str]) -> int:
    """Return pytest's exit code; 1 with a sentence when something is missing."""
    if missing := for_the_cluster(os.environ) or for_the_images(os.environ):
        print(missing, file=sys.stderr)
        return 1
    subprocess.run(["make", "--silent", "--no-print-directory", ".tools/azurite/ready"], check=True)
    builder = Builder()
    print("building the images and loading them into the cluster", flush=True)
    builder.build(IMAGES[OUR_IMAGE])
    azurite = (TOP / ".tools/azurite").resolve()
    builder.build(IMAGES[AZURITE_IMAGE], azurite, TOP / "tests/kubernetes/azurite.Dockerfile")
    for image in IMAGES.values():
        load(builder, image)
    tests = [sys.executable, "-m", "pytest", "tests/kubernetes/test_cluster.py", *argv]
    return subprocess.run(tests, env=os.environ | IMAGES, check=False).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
