"""Archives that are damaged, hostile or huge: refused, at a bounded cost, with nothing left behind."""

from __future__ import annotations

import gzip
import io
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lightkeeper import errors
from lightkeeper.modelpackage import archive as archives
from lightkeeper.modelpackage.limits import KIB, MIB, Limits
from lightkeeper.modelpackage.staging import Staging
from tests.support.packages import Workshop, add, archive, repack
from tests.support.systems import posix_only

same_folder = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)


def refusal(path: Path, folder: Path, limits: Limits | None = None) -> errors.AgentError | None:
    """Unpack an archive; return why it was refused, or None. Nothing must be left either way."""
    limits = limits or Limits()
    written = 0

    def count(size_bytes: int) -> None:
        nonlocal written
        written += size_bytes

    staging = Staging(folder / "staging", limits)
    try:
        with staging.copy(count) as copy:
            archives.stage(path, copy, limits)
    except errors.AgentError as error:
        assert written <= limits.unpacked_bytes
        return error
    finally:
        assert list((folder / "staging").iterdir()) == []
    return None


def test_archive_cut_anywhere_is_refused(workshop: Workshop) -> None:
    """However short a copy of an archive was cut, it is not taken for the whole (clause 5.3)."""
    path = archive(workshop.folder / "p.tar.gz", workshop.package())
    whole = path.read_bytes()
    for length in range(0, len(whole), 13):
        path.write_bytes(whole[:length])
        assert isinstance(refusal(path, workshop.folder), errors.PackageUnreadable), length


def test_stream_cut_anywhere_within_good_compression_is_noticed(workshop: Workshop) -> None:
    """A tar stream that ends early is refused, or lacks files that the signature then misses (clause 5.3)."""
    path = archive(workshop.folder / "p.tar.gz", workshop.package())
    stream = gzip.decompress(path.read_bytes())
    length_of_content = len(stream.rstrip(b"\0"))
    for length in range(0, length_of_content, 211):
        path.write_bytes(gzip.compress(stream[:length]))
        with pytest.raises(errors.PackageRefused), workshop.store().open(str(path)):
            pass


@same_folder
@given(st.data())
def test_changed_byte_is_never_another_package(workshop: Workshop, data: st.DataObject) -> None:
    """With any byte of the tar stream changed, an archive is refused or still the same package (clause 5.3)."""
    files = workshop.package()
    path = archive(workshop.folder / "p.tar.gz", files)

    def change(stream: bytes) -> bytes:
        index = data.draw(st.integers(0, len(stream) - 1))
        return stream[:index] + bytes([stream[index] ^ data.draw(st.integers(1, 255))]) + stream[index + 1 :]

    repack(path, change)
    try:
        with workshop.store().open(str(path)) as package:
            assert {name: (package.folder / name).read_bytes() for name in package.files} == files
    except errors.PackageRefused:
        pass


@same_folder
@given(st.binary(max_size=2000))
def test_noise_is_refused(workshop: Workshop, noise: bytes) -> None:
    """Noise, compressed or not, is refused as unreadable (clause 5.3)."""
    path = workshop.folder / "noise.tar.gz"
    for content in (noise, b"\x1f\x8b" + noise, gzip.compress(noise + b"x")):
        path.write_bytes(content)
        assert isinstance(refusal(path, workshop.folder), errors.PackageUnreadable | errors.ArchiveTooLarge)


def test_bomb_of_bytes_is_stopped_by_the_ratio(workshop: Workshop) -> None:
    """A hundred megabytes of zeros, packed a thousandfold, are refused long before they are written (clause 5.4)."""
    path = workshop.folder / "bomb.tar.gz"
    with tarfile.open(path, "w:gz") as tar:
        info = tarfile.TarInfo("zeros")
        info.size = 96 * MIB
        tar.addfile(info, _Zeros())
    error = refusal(path, workshop.folder, Limits(ratio_grace_bytes=1 * MIB))
    assert isinstance(error, errors.ArchiveTooLarge)
    assert error.facts["limit"] == "ratio"


@pytest.mark.parametrize("kind", [tarfile.REGTYPE, tarfile.DIRTYPE], ids=["files", "folders"])
def test_bomb_of_members_is_stopped(workshop: Workshop, kind: bytes) -> None:
    """Empty members by the thousand are refused at the limit (clause 5.4)."""
    path = workshop.folder / "bomb.tar.gz"
    with tarfile.open(path, "w:gz") as tar:
        for number in range(300):
            add(tar, f"m{number}", kind=kind)
    error = refusal(path, workshop.folder, Limits(members=200))
    assert isinstance(error, errors.ArchiveTooLarge)
    assert error.facts["limit"] == "members"


def test_announced_size_is_refused_before_anything_is_written(workshop: Workshop) -> None:
    """A header that announces more than the limit is refused by its word alone (clause 5.4)."""
    header = tarfile.TarInfo("huge")
    header.size = 2**62
    path = workshop.folder / "huge.tar.gz"
    path.write_bytes(gzip.compress(header.tobuf(tarfile.GNU_FORMAT)))
    error = refusal(path, workshop.folder)
    assert isinstance(error, errors.ArchiveTooLarge)
    assert error.facts["limit"] == "unpacked_bytes"


def test_member_of_negative_size_is_refused(workshop: Workshop) -> None:
    """A size below zero, which tar's binary numbers can say, is refused (clause 5.3)."""
    header = tarfile.TarInfo("negative")
    buffer = bytearray(header.tobuf(tarfile.GNU_FORMAT))
    buffer[124:136] = b"\xff" * 12
    buffer[148:156] = b"%06o\0 " % sum(_with_blank_checksum(buffer))
    path = workshop.folder / "negative.tar.gz"
    path.write_bytes(gzip.compress(bytes(buffer) + bytes(1024)))
    assert isinstance(refusal(path, workshop.folder), errors.PackageUnreadable)


def _with_blank_checksum(buffer: bytearray) -> bytes:
    return bytes(buffer[:148]) + b" " * 8 + bytes(buffer[156:])


@posix_only
@pytest.mark.parametrize(
    "kind", [tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE, tarfile.XGLTYPE], ids=["GNU", "pax", "global"]
)
def test_header_of_any_length_does_not_fill_the_memory(workshop: Workshop, kind: bytes) -> None:
    """A header of a hundred megabytes, which compresses to nothing, is refused before it is read (clause 5.4)."""
    path = workshop.folder / "header.tar.gz"
    with gzip.GzipFile(path, "wb", compresslevel=1) as file:
        info = tarfile.TarInfo("long")
        info.type = kind
        info.size = 128 * MIB
        file.write(info.tobuf(tarfile.GNU_FORMAT))
        for _ in range(128):
            file.write(b"a" * MIB)
    program = (
        "import resource, sys; from pathlib import Path\n"
        "from lightkeeper import errors; from lightkeeper.modelpackage.package import PackageStore\n"
        "from lightkeeper.modelpackage.trustrecord import TrustRecord\n"
        "path, folder = map(Path, sys.argv[1:])\n"
        "store = PackageStore(root_certs=folder, staging=folder, record=TrustRecord(None), host=None)\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "try:\n"
        "    with store.open(str(path)): pass\n"
        "except errors.ArchiveTooLarge as error:\n"
        "    print(error.facts['limit'], resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(path), str(workshop.folder / "s")],
        check=True,
        capture_output=True,
        text=True,
    )
    limit, grown_kib = done.stdout.split()
    assert limit in {"header_bytes", "ratio"}
    assert int(grown_kib) < 32 * KIB


def test_bytes_after_the_end_are_refused(workshop: Workshop) -> None:
    """What follows the last member is zeros, or the archive is refused (clause 5.3)."""
    path = archive(workshop.folder / "p.tar.gz", workshop.package())
    repack(path, lambda stream: stream + bytes(64 * KIB) + b"more")
    assert isinstance(refusal(path, workshop.folder), errors.PackageUnreadable)
    archive(path, workshop.package())
    path.write_bytes(path.read_bytes() + b"more")
    assert isinstance(refusal(path, workshop.folder), errors.PackageUnreadable)
    archive(path, workshop.package())
    repack(path, lambda stream: stream + bytes(64 * KIB))
    assert refusal(path, workshop.folder) is None


def test_sparse_member_is_refused(workshop: Workshop) -> None:
    """A sparse file, whose header is a small bomb of its own, is refused (clause 5.2)."""
    path = archive(workshop.folder / "p.tar.gz", {}, lambda tar: add(tar, "sparse", kind=tarfile.GNUTYPE_SPARSE))
    assert isinstance(refusal(path, workshop.folder), errors.PackageMemberForbidden)


def test_source_that_shrinks_or_grows_while_it_is_copied_is_refused(tmp_path: Path) -> None:
    """A file that changes its length under the copy is noticed (clause 5.1)."""
    for size in (3, 5):
        with (
            Staging(tmp_path / "staging", Limits()).copy(lambda _: None) as copy,
            pytest.raises(errors.PackageUnreadable),
        ):
            copy.write("file", io.BytesIO(b"four"), size)


@posix_only
def test_file_size_limit_of_the_process_is_a_full_disk(workshop: Workshop) -> None:
    """Where the system lets the process write no more, the package is refused and the process lives (clause 5.5)."""
    path = archive(workshop.folder / "p.tar.gz", {"big": os.urandom(300 * KIB)})
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100 * KIB, hard))
    try:
        error = refusal(path, workshop.folder)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert isinstance(error, errors.DiskShort)
    assert error.facts["file"] == "big"


def test_checksum_of_the_compression_is_checked(workshop: Workshop) -> None:
    """Content that unpacks but has the wrong checksum is refused (clause 5.3)."""
    path = archive(workshop.folder / "p.tar.gz", workshop.package())
    content = bytearray(path.read_bytes())
    content[-8] ^= 1
    path.write_bytes(content)
    assert isinstance(refusal(path, workshop.folder), errors.PackageUnreadable)


class _Zeros(io.RawIOBase):
    """As many zeros as are asked for."""

    def read(self, size: int = -1, /) -> bytes:
        return bytes(size)
