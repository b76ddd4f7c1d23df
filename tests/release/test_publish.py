"""A release store in a bucket: published with the command, listed and fetched with the AWS CLI as users' scripts do."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from lightkeeper import releases
from lightkeeper.cli import run
from lightkeeper.errors import StoreUnusable
from lightkeeper.modelpackage.signature import Signer
from release import archive
from tests.support import seaweed as s3
from tests.support.seaweed import Seaweed

OLD, NEW = "1.20261001.0000001", "1.20261101.0a1b2c3"


def make_store(folder: Path, authority: Path, *versions: str, content: str = "x") -> Path:
    """Make a store with small archives."""
    store = folder / "release-store-linux-x64"
    for version in versions:
        (folder / version).mkdir()
        (folder / version / "notes").write_text(content)
        path = store / "Releases" / version / f"{version}.tgz"
        archive.pack(folder / version, version, 1_790_000_000, path)
        archive.write_checksum(path)
        archive.sign(path, Signer.load(authority))
    certificate = store / "Certificates" / "test-1" / "test-1.pem"
    certificate.parent.mkdir(parents=True)
    certificate.write_bytes((authority / "certs" / "test-1.pem").read_bytes())
    return store


@pytest.fixture
def bucket(seaweed: Seaweed, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """An empty bucket, and the environment of somebody who may write to it."""
    name = f"releases-{tmp_path.name.replace('_', '-')[:40]}"
    client = seaweed.client()
    client.create_bucket(Bucket=name)
    client.close()
    for key, value in s3.ENVIRONMENT.items():
        monkeypatch.setenv(key, value)
    return name


def publish(seaweed: Seaweed, store: Path, bucket: str, *words: str) -> int:
    """Run the command."""
    place = ["--endpoint", seaweed.endpoint, "--region", s3.REGION]
    return run(["release", "publish", str(store), f"s3://{bucket}", *place, *words])


def aws(seaweed: Seaweed, *words: str) -> str:
    """Run the AWS CLI."""
    program = Path(sys.executable).with_name("aws")
    command = [program, "--endpoint-url", seaweed.endpoint, "--region", s3.REGION, "s3", *words]
    return subprocess.run(command, check=True, capture_output=True, text=True, env=os.environ | s3.ENVIRONMENT).stdout


def test_scripts_find_the_newest_release_and_check_it(
    seaweed: Seaweed, bucket: str, tmp_path: Path, authority: Path
) -> None:
    """`aws s3 ls … | sort -r`, `aws s3 cp`, `sha256sum --check`, and the signature under the store's certificate."""
    store = make_store(tmp_path, authority, OLD, NEW)
    assert publish(seaweed, store, bucket) == 0
    listed = aws(seaweed, "ls", f"s3://{bucket}/Releases/")
    assert sorted(listed.split(), reverse=True)[:4] == ["PRE", "PRE", f"{NEW}/", f"{OLD}/"]
    fetched = tmp_path / "fetched"
    aws(seaweed, "cp", "--recursive", f"s3://{bucket}/Releases/{NEW}/", str(fetched))
    aws(seaweed, "cp", f"s3://{bucket}/Certificates/test-1/test-1.pem", str(fetched / "roots" / "test-1.pem"))
    (fetched / "roots" / "test-1.pem").chmod(0o444)
    subprocess.run(["sha256sum", "--check", "--strict", releases.CHECKSUM], cwd=fetched, check=True)
    assert run(["release", "verify", str(fetched / f"{NEW}.tgz"), "--root-certs", str(fetched / "roots")]) == 0


def test_what_is_published_is_left_alone(
    seaweed: Seaweed, bucket: str, tmp_path: Path, authority: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A second time nothing is sent; another content under the same name is refused, and nothing is replaced."""
    store = make_store(tmp_path, authority, NEW)
    assert publish(seaweed, store, bucket) == 0
    capsys.readouterr()
    assert publish(seaweed, store, bucket, "--json") == 0
    assert all(file["was_there"] for file in json.loads(capsys.readouterr().out)["published"])
    (tmp_path / "other").mkdir()
    other = make_store(tmp_path / "other", authority, NEW, content="y")
    assert publish(seaweed, other, bucket) == 1
    assert "RELEASE_TAKEN" in capsys.readouterr().err
    name = f"{NEW}.tgz"
    aws(seaweed, "cp", f"s3://{bucket}/Releases/{NEW}/{name}", str(tmp_path / name))
    assert releases.sha256_of(tmp_path / name) == releases.sha256_of(store / "Releases" / NEW / name)


def test_a_store_whose_files_do_not_belong_together_is_refused(tmp_path: Path, authority: Path) -> None:
    """No archive at all, a signature that lacks, a checksum of something else: nothing of it is sent."""
    with pytest.raises(StoreUnusable, match="has no Releases"):
        releases.files_of(tmp_path)
    store = make_store(tmp_path, authority, NEW)
    path = store / "Releases" / NEW / f"{NEW}.tgz"
    with path.open("ab") as file:
        file.write(b"\0")
    with pytest.raises(StoreUnusable, match="is not what"):
        releases.files_of(store)
    releases.signature_of(path).unlink()
    with pytest.raises(StoreUnusable, match="lacks"):
        releases.files_of(store)


def test_what_names_others_is_published_last(tmp_path: Path, authority: Path) -> None:
    """Whoever sees the checksum can fetch what it is of."""
    names = [file.name.rpartition("/")[2] for file in releases.files_of(make_store(tmp_path, authority, NEW))]
    assert names == ["test-1.pem", f"{NEW}.tgz", f"{NEW}.tgz.sig.json", releases.CHECKSUM]


def test_publishing_needs_nothing_of_the_hub(tmp_path: Path, authority: Path) -> None:
    """Only `lightkeeper[aws]`: a store is refused by the network before any module of the hub is imported."""
    store = make_store(tmp_path, authority, NEW)
    program = (
        "import sys; from lightkeeper.cli import run; "
        f"code = run(['release', 'publish', {str(store)!r}, 's3://nowhere', '--endpoint', 'http://127.0.0.1:9']); "
        "print(code, *[name for name in sys.modules if name.startswith(('lightkeeper.hub', 'aiohttp', 'sqlalchemy'))])"
    )
    environment = os.environ | s3.ENVIRONMENT
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment, check=True)
    assert "OBJECT_STORE_UNREACHABLE" in done.stderr
    assert done.stdout.split() == ["1"]
