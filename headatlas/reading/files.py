"""One file that is read: how large it may be, what is said where it is bad, and its bytes or text."""

from __future__ import annotations

import contextlib
import os
import stat
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from headatlas.errors import HeadAtlasError, StoreError

MB = 1 << 20
# What parsers raise for bad bytes beside ValueError (UnicodeDecodeError, ArrowInvalid and JSONDecodeError are ValueErrors).
_BAD: tuple[type[Exception], ...] = (
    ValueError, TypeError, KeyError, IndexError, AttributeError, OverflowError, RecursionError, MemoryError, EOFError,
    NotImplementedError, SyntaxError, zipfile.BadZipFile, zlib.error,
)  # fmt: skip


@dataclass(frozen=True)
class Source:
    """A file and how its faults are told.

    hint: what to do about a bad file. error: the kind of error. largest: bytes. pipe: whether it may be a pipe or a
    device (a file that a user names), not a regular file alone (a file of a folder that others made).
    """

    path: Path
    hint: str = "Fetch or make it again."
    error: type[HeadAtlasError] = StoreError
    largest: int = 64 * MB
    pipe: bool = False

    def bad(self, what: str) -> HeadAtlasError:
        """The error that says what is wrong: `what` ends the sentence that begins with the path."""
        return self.error(f"{self.path} {what}.", self.hint)

    @contextlib.contextmanager
    def explained(self, *more: type[Exception]) -> Iterator[None]:
        """Turn what reading and parsing raise, and the errors `more` of a library, into one line that names the file."""
        try:
            yield
        except HeadAtlasError:
            raise
        except MemoryError as error:
            raise self.bad("asks for more memory than there is") from error
        except RecursionError as error:
            raise self.bad("is nested too deep") from error
        except UnicodeDecodeError as error:
            raise self.bad(
                f"is not UTF-8 text (byte {error.start} is {error.object[error.start]:#04x}); save it as UTF-8"
            ) from error
        except _BAD + more as error:
            raise self.bad(f"is damaged ({reason(error)})") from error
        except OSError as error:
            raise self.error(f"{self.path} cannot be read: {error.strerror or reason(error)}.", self.hint) from error


def reason(error: BaseException) -> str:
    """An error's text on one line, at most 200 characters, with its kind where the text says little alone."""
    line = " ".join(str(error).split()).rstrip(".")[:200]
    kind = "" if isinstance(error, ValueError) and line else type(error).__name__
    return ": ".join(part for part in (kind, line) if part)


def read_bytes(source: Source) -> bytes:
    """The bytes of a file. Raises source.error where it cannot be read, is no file, or is larger than it may be."""
    with source.explained():
        # Opened without waiting: a pipe in a folder that somebody made would block for ever.
        flags = os.O_RDONLY | (0 if source.pipe else os.O_NONBLOCK)
        with open(os.open(source.path, flags), "rb") as stream:
            if not source.pipe and not stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
                raise source.bad("is not a file")
            found = stream.read(source.largest + 1)
    if len(found) > source.largest:
        raise source.bad(f"has more than {source.largest // MB} MB, which no such file needs")
    return found


def read_text(source: Source) -> str:
    """The text of a UTF-8 file, with or without a byte order mark. Raises source.error."""
    data = read_bytes(source)
    with source.explained():
        return data.decode("utf-8-sig")
