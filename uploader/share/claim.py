"""A file's three names: plain, `.processing` while it is claimed, `.completed` once it is in the store.

A rename never overwrites something unproven (I4): only we write `.processing` and `.completed`, and look there first;
a plain name belongs to the producer, so a claim is given back by link(), which fails when the name is taken.
"""

import os

from uploader.errors import InTheWay, Vanished
from uploader.share.fingerprint import inode
from uploader.share.paths import COMPLETED, PROCESSING


class Claim:
    """One file of one folder. `folder` is an open descriptor; every method may raise OSError."""

    def __init__(self, folder: int, name: str) -> None:
        self.folder = folder
        self.name = name
        self.processing = name + PROCESSING
        self.completed = name + COMPLETED

    def held(self) -> bool:
        """Tell whether `.processing` is there: claimed by us, or before a crash."""
        return inode(self.folder, self.processing) is not None

    def take(self) -> None:
        """Rename to `.processing`. Call only when `held()` is False: an older claim is finished first.

        Raises Vanished when the file is gone.
        """
        try:
            self._rename(self.name, self.processing)
        except FileNotFoundError:
            # A rename whose reply was lost answers ENOENT when repeated: the file is at the target then.
            if not self.held():
                raise Vanished(self.name) from None

    def complete(self, claimed: int) -> None:
        """Mark the file of inode `claimed` as completed. Raises InTheWay, Vanished."""
        ours, there = inode(self.folder, self.processing), inode(self.folder, self.completed)
        if ours not in {None, claimed}:
            raise Vanished(self.processing)  # another shard finished this file and claimed the next (I9)
        if there not in {None, claimed}:
            # Without a claim no room is needed: another shard finished this file, and perhaps the next.
            raise InTheWay(f"{self.completed} is in the way") if ours else Vanished(self.processing)
        try:
            self._rename(self.processing, self.completed)
        except FileNotFoundError:
            if inode(self.folder, self.completed) != claimed:
                raise Vanished(self.processing) from None

    def give_back(self) -> None:
        """Undo the claim. Raises InTheWay when the producer has put a new file under the plain name."""
        move(self.folder, self.processing, self.name)

    def finish_giving_back(self) -> None:
        """Finish a give-back that a crash has cut in two: one file, two names. Raises Vanished if there was one."""
        if inode(self.folder, self.processing) == inode(self.folder, self.name):
            self.give_back()
            raise Vanished(self.processing)

    def reopen(self) -> None:
        """Undo the completion. Raises InTheWay when the next file is claimed already."""
        try:
            move(self.folder, self.completed, self.processing)
        except PermissionError:  # fs.protected_hardlinks refuses to link other people's files
            if self.held():
                raise InTheWay(f"{self.processing} is in the way") from None
            self._rename(self.completed, self.processing)

    def _rename(self, source: str, target: str) -> None:
        os.rename(source, target, src_dir_fd=self.folder, dst_dir_fd=self.folder)


def move(folder: int, source: str, target: str) -> None:
    """Rename without ever overwriting: link, then unlink. Raises InTheWay, OSError.

    A crash between the two leaves one file under two names; the next call finishes the move.
    """
    try:
        os.link(source, target, src_dir_fd=folder, dst_dir_fd=folder, follow_symlinks=False)
    except FileExistsError:
        if inode(folder, source) != inode(folder, target):
            raise InTheWay(f"{target} is in the way") from None
    # Another process may have moved the file and claimed it again: then `source` is its only name.
    if inode(folder, source) == inode(folder, target):
        os.unlink(source, dir_fd=folder)
