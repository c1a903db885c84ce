"""Gives back the claims that are left in a session's folder after a stop at once."""

from collections.abc import Iterable

from uploader.backlog.inventory import Inventory
from uploader.errors import InTheWay
from uploader.naming import PROCESSING
from uploader.share.claim import Claim
from uploader.share.mark import Mark
from uploader.share.mount import Share
from uploader.share.scan import Found, Kind


def give_back(found: Iterable[Found], share: Share, files: Inventory) -> None:
    """Undo every claim among these names, overwriting nothing (I4). A claim that stays counts as failed."""
    for one in found:
        if one.kind is Kind.PROCESSING:
            _undo(one, share, files)


def _undo(found: Found, share: Share, files: Inventory) -> None:
    try:
        Claim(found.folder, found.name.removesuffix(PROCESSING), Mark(share, files.session).set).give_back()
    except FileNotFoundError:
        pass
    except (InTheWay, OSError) as error:  # fs.protected_hardlinks refuses to link other people's files
        if isinstance(error, OSError):
            share.judge(error)
        files.fail(found.path, error)
