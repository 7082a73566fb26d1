"""Files: written whole or not at all, and read without trust in what they hold."""

import errno
import hashlib
import io
import os
import secrets
import shutil
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor

DIGITS = 64  # of SHA-256
OF_THE_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS)


class WriteError(OSError):
    """A file that could not be written; the message names it, the cause, and the disk where that is the cause."""

    def __init__(self, path: Path, error: OSError):
        super().__init__(error.errno, error.strerror or str(error), str(path))

    def __str__(self) -> str:
        if self.errno not in OF_THE_DISK:
            return f"{self.filename} cannot be written ({self.strerror})"
        disk = next(place for place in Path(self.filename).absolute().parents if os.path.ismount(place))
        free = shutil.disk_usage(disk).free / 1e6
        return (
            f"{self.filename} cannot be written ({self.strerror}): the disk mounted at {disk} has {free:.1f} MB free, "
            "make room there"
        )


def write_atomically(path: Path, content: bytes | memoryview) -> None:
    """Write beside `path`, flush to the disk, then rename: readers see the old content or the new, never a part.

    What bears the temporary name is never followed or overwritten. Raises WriteError, and then leaves nothing behind.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        with open(temporary, "xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise WriteError(path, error) from None
        raise


def save_tensors(path: Path, content: dict[str, Any]) -> int:
    """Write tensors and plain values as PyTorch's archive, whose comment is the checksum of all before; gives its size.

    A file without comment, as `torch.save` writes it, is read too: its parts have checksums of their own.
    """
    archive = io.BytesIO()
    torch.save(_on_cpu(content), archive)
    archive.seek(-2, io.SEEK_END)
    archive.write(DIGITS.to_bytes(2, "little"))  # the comment's length
    archive.write(hashlib.sha256(archive.getbuffer()).hexdigest().encode())
    write_atomically(path, archive.getbuffer())
    return archive.getbuffer().nbytes


def _on_cpu(value: Any) -> Any:
    """The same with tensors on the CPU that share no memory: a file holds what they are, and not where they lived."""
    if isinstance(value, dict):
        return {key: _on_cpu(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_on_cpu(item) for item in value)
    if isinstance(value, Tensor):
        return value.detach().clone() if value.device.type == "cpu" else value.detach().cpu()
    return value


def load_tensors(path: Path) -> Any:
    """What `save_tensors` wrote, on the CPU. Executes nothing, and takes no more memory than the file has bytes.

    Raises whatever the damage leads to: zipfile's, pickle's and PyTorch's errors, and ValueError.
    """
    if path.exists() and not path.is_file():  # devices and pipes, which may have no end
        raise ValueError("it is no regular file")
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        _check_archive(file, size)
        file.seek(0)
        content = torch.load(file, map_location="cpu", weights_only=True)
    _check_size(content, size)
    return content


def _check_archive(file: IO[bytes], size: int) -> None:
    """ValueError for an archive that is not as PyTorch writes it: uncompressed, whole, with the right checksums.

    PyTorch itself ignores checksums, and would unpack what is compressed. Nothing else may stand before the archive or
    behind it: there another reader might see another archive.
    """
    with zipfile.ZipFile(file) as archive:
        parts = archive.infolist()
        begins = min((part.header_offset for part in parts), default=-1) == 0
        alone = len({part.filename for part in parts}) == len(parts)
        if not begins or not alone:
            raise ValueError("it is no archive of PyTorch's making")
        if sum(part.file_size for part in parts) > size:
            raise ValueError("it is compressed")
        if archive.comment and archive.comment != _checksum(file, size - DIGITS):
            raise ValueError("its checksum is wrong")
        if (wrong := archive.testzip()) is not None:
            raise ValueError(f"the checksum of its part {wrong} is wrong")


def _checksum(file: IO[bytes], size: int) -> bytes:
    """SHA-256 of the first `size` bytes."""
    file.seek(0)
    digest = hashlib.sha256()
    while size > 0 and (chunk := file.read(min(size, 2**20))):
        digest.update(chunk)
        size -= len(chunk)
    return digest.hexdigest().encode()


def _check_size(content: Any, size: int) -> None:
    """ValueError for contents that are larger than the file: tensors without memory of their own, endless nesting."""
    held = 0
    for count, value in enumerate(_parts(content)):
        if isinstance(value, Tensor):
            if value.layout != torch.strided or value.device.type != "cpu" or value.is_quantized:
                raise ValueError("it holds a tensor of a kind that is not ours")
            held += value.nbytes
        if held > size or count > size:
            raise ValueError("it describes more than it holds")


def _parts(content: Any) -> Iterator[Any]:
    left = [content]
    while left:
        value = left.pop()
        yield value
        if isinstance(value, dict):
            left += value.values()
        elif isinstance(value, list | tuple):
            left += value
