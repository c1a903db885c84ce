"""A file's three names: plain, `.processing` while it is claimed, `.completed` once it is in the store.

A rename never overwrites something unproven (I4): only we write `.processing` and `.completed`, and look there first;
a plain name belongs to the producer, so a claim is given back by link(), which fails when the name is taken.
"""

import os
from collections.abc import Callable

from uploader.errors import InTheWay, Vanished
from uploader.naming import COMPLETED, PROCESSING
from uploader.share.fingerprint import inode


class Claim:
    """One file of one folder. `folder` is a descriptor; every method may raise OSError.

    `mark` says on the share that a file is given back, before and after that is done.
    """

    def __init__(self, folder: int, name: str, mark: Callable[[], None]) -> None:
        self._mark = mark
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
        if ours == there:
            _unlink(self.folder, self.completed, self.processing)  # rename() between two names of one file does nothing
        try:
            self._rename(self.processing, self.completed)
        except FileNotFoundError:
            if inode(self.folder, self.completed) != claimed:
                raise Vanished(self.processing) from None

    def half_undone(self) -> bool:
        """Tell whether `.completed` is one file with another of its names: its way back was ended by half."""
        return any(_one(self.folder, self.completed, name) for name in (self.processing, self.name))

    def finish(self) -> None:
        """End what is half done. Every such step leads towards the plain name, so the name that is further on goes."""
        plain, processing, completed = self._names()
        for source, target in (completed, processing), (completed, plain), (processing, plain):
            if _one(self.folder, source, target):
                self._mark()
                _unlink(self.folder, source, target)
                self._mark()

    def give_back(self) -> None:
        """Undo the claim. Raises InTheWay when the producer has put a new file under the plain name."""
        self.finish()
        if self.held():
            self._move(self.processing, self.name)

    def take_back(self) -> None:
        """Undo the completion: to the plain name or, before a newer file there, to `.processing`.

        A newer claim goes back first, so that the older file is sent before it. Raises InTheWay when both newer
        names are taken.
        """
        self.finish()
        if inode(self.folder, self.completed) is None:
            return
        if self.held():
            self.give_back()
        try:
            self._move(self.completed, self.name)
        except (InTheWay, PermissionError):
            self.reopen()

    def reopen(self) -> None:
        """Undo the completion as far as `.processing`. Raises InTheWay when the next claim is there already."""
        try:
            self._move(self.completed, self.processing)
        except PermissionError:  # fs.protected_hardlinks refuses to link other people's files
            if self.held():
                raise InTheWay(f"{self.processing} is in the way") from None
            self._rename(self.completed, self.processing)

    def _names(self) -> tuple[str, str, str]:
        return self.name, self.processing, self.completed

    def _rename(self, source: str, target: str) -> None:
        os.rename(source, target, src_dir_fd=self.folder, dst_dir_fd=self.folder)

    def _move(self, source: str, target: str) -> None:
        """Rename without ever overwriting: link, then unlink. Raises InTheWay, OSError.

        A crash between the two leaves one file under two names: `finish` ends that.
        """
        self._free(source, target)  # before the mark: a file that stays where it is must not hold up others
        self._mark()
        try:
            os.link(source, target, src_dir_fd=self.folder, dst_dir_fd=self.folder, follow_symlinks=False)
        except FileExistsError:
            self._free(source, target)
        _unlink(self.folder, source, target)
        self._mark()

    def _free(self, source: str, target: str) -> None:
        """Raise InTheWay when another file has the name `target`."""
        if inode(self.folder, target) not in {None, inode(self.folder, source)}:
            raise InTheWay(f"{target} is in the way")


def _one(folder: int, source: str, target: str) -> bool:
    """Tell whether both names are there, and are those of one file."""
    ours = inode(folder, source)
    return ours is not None and ours == inode(folder, target)


def _unlink(folder: int, source: str, target: str) -> None:
    """Take `source` away from a file that is `target` too.

    Another process may have done the same meanwhile, and the file been claimed anew: then this is its only name.
    """
    if _one(folder, source, target):
        os.unlink(source, dir_fd=folder)
