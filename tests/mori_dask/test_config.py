"""Dask's configuration has a key for all that may be set; a wrong value is an error that names its key."""

import json
import os
import subprocess
import sys
from pathlib import Path

import dask
import distributed
import jsonschema
import numpy as np
import pandas as pd
import pytest
import yaml
from dask.sizeof import sizeof
from distributed import Client

import mori
import mori_dask
from mori import settings
from mori.__main__ import main
from mori.tools import doctor
from mori_dask import config
from tests import stored
from tests.mori_dask.test_paths import look

FOLDER = Path(mori_dask.__file__).parent
SCHEMA = yaml.safe_load((FOLDER / "mori-dask-schema.yaml").read_text(encoding="utf-8"))
DEFAULTS = yaml.safe_load((FOLDER / "mori-dask.yaml").read_text(encoding="utf-8"))

WRONG = {
    "mori.store": ["shm", "files:", "memfd:x", 3],
    "mori.grace": [-1, "ten", "inf", True],
    "mori.pool": [-1, "much", True, [1]],
    "mori.pool-seconds": [-1, "ten", "inf", True],
    "mori.dask.enabled": ["yes", None, 1],
    "mori.dask.frame-interception": ["on", None, 1],
    "mori.dask.min-bytes": [True, False, None, 0, -5, "much", 1.5],
    "mori.dask.relay": ["value", None, 0],
    "mori.dask.land-bytes": [True, 0, -5, "much", 1.5],
    "mori.dask.auto-share": [True, 0, -5, "much", 1.5j],
    "mori.dask.auto-share-fraction": [0, 1.5, "half", True, None],
    "mori.dask.memory-accounting": ["on", None],
    "mori.dask.keep-replicas": ["on", None],
    "mori.dask.spill": ["bytes", None, True],
    "mori.dask.sizeof": ["small", None],
}
RIGHT = {
    "mori.store": [None, "memfd", "files", "files:/tmp"],
    "mori.grace": [None, 0, 2.5],
    "mori.pool": [None, 0, 2_000_000, "2 GB"],
    "mori.pool-seconds": [None, 0, 2.5],
    "mori.dask.enabled": [True, False],
    "mori.dask.frame-interception": [True, False],
    "mori.dask.min-bytes": ["1 kiB", 1],
    "mori.dask.relay": [True, False],
    "mori.dask.land-bytes": [None, False, "1 MiB", 1],
    "mori.dask.auto-share": [None, False, "10 MB", 1000],
    "mori.dask.auto-share-fraction": [0.1, 1],
    "mori.dask.memory-accounting": [True, False],
    "mori.dask.keep-replicas": [True, False],
    "mori.dask.spill": ["reference", "value"],
    "mori.dask.sizeof": ["reference", "full"],
}


def _flat(tree, path=""):
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{path}{key}.")
        else:
            yield f"{path}{key}", value


def _described(schema, path=""):
    for key, value in schema.get("properties", {}).items():
        if "properties" in value:
            yield from _described(value, f"{path}{key}.")
        else:
            yield f"{path}{key}", value


def _tree(key, value):
    for part in reversed(key.split(".")):
        value = {part: value}
    return value


def test_defaults_schema_checks_and_documentation_have_the_same_keys():
    keys = {key for key, _ in _flat(DEFAULTS)}
    assert keys == {key for key, _ in _described(SCHEMA)} == {*config._KEYS} == {*RIGHT} == {*WRONG}
    assert all(len(described["description"]) > 40 for _, described in _described(SCHEMA))
    written = (FOLDER.parent / "docs" / "dask.md").read_text(encoding="utf-8")
    assert [key for key in keys if f"`{key}`" not in written] == []
    jsonschema.validate(DEFAULTS, SCHEMA)
    config.check()


@pytest.mark.parametrize("key", WRONG)
def test_a_value_that_cannot_be_used_is_an_error_that_names_the_key(key: str):
    for value in WRONG[key]:
        with dask.config.set({key: value}):
            with pytest.raises(mori.SettingError, match=key) as caught:
                config.get(key)
            assert repr(value) in str(caught.value)
            with pytest.raises(mori.SettingError, match=key):
                config.check()
    for value in RIGHT[key]:
        jsonschema.validate(_tree(key, value), SCHEMA)
        with dask.config.set({key: value}):
            config.check()


def test_a_key_that_does_not_exist_is_an_error_that_names_it():
    with (
        dask.config.set({"mori.dask.autoshare": "10 MB"}),
        pytest.raises(mori.SettingError, match=r"mori\.dask\.autoshare"),
    ):
        config.check()


def test_the_environment_sets_keys_as_it_does_all_of_dasks():
    code = (
        "import mori_dask, mori_dask.config as c, mori.settings as s;"
        "print(*[c.get(f'mori.dask.{key}') for key in ('auto-share', 'spill', 'frame-interception', 'relay',"
        "'min-bytes', 'land-bytes')], s.grace(), s.store())"
    )
    told = {
        "DASK_MORI__DASK__AUTO_SHARE": "10 MB",
        "DASK_MORI__DASK__SPILL": "value",
        "DASK_MORI__DASK__FRAME_INTERCEPTION": "False",
        "DASK_MORI__DASK__RELAY": "False",
        "DASK_MORI__DASK__MIN_BYTES": "2 kB",
        "DASK_MORI__DASK__LAND_BYTES": "3 MB",
        "DASK_MORI__GRACE": "3",
        "DASK_MORI__STORE": "files:/tmp",
    }
    environment = {key: text for key, text in os.environ.items() if not key.startswith(("MORI_", "DASK_"))}
    environment |= told | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert (done.stdout, done.stderr) == ("10000000 value False False 2000 3000000 3.0 files:/tmp\n", "")


def test_moris_own_settings_are_dasks_keys_and_the_environment_comes_first(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    with dask.config.set({"mori.grace": 7, "mori.store": f"files:{tmp_path}"}):
        assert settings.grace() == 0.2  # the tests' MORI_GRACE
        monkeypatch.delenv("MORI_GRACE")
        monkeypatch.delenv("MORI_STORE", raising=False)
        assert settings.grace() == 7
        shared = mori.share(np.arange(100))
        assert len(stored.names(tmp_path)) == 1
        del shared
    with dask.config.set({"mori.pool": "2 GB", "mori.pool-seconds": 3}):
        assert (settings.pool(), settings.pool_seconds()) == (2_000_000_000, 3)
    assert (settings.grace(), settings.store(), settings.pool(), settings.pool_seconds()) == (10, "", 0, 10)
    with dask.config.set({"mori.grace": -1}), pytest.raises(mori.SettingError, match=r"mori\.grace=-1"):
        mori.share(np.arange(100))


def test_what_is_not_enabled_goes_by_value(client: Client):
    array = mori.share(np.arange(50_000))
    with dask.config.set({"mori.dask.enabled": False}):
        future = client.submit(look, array, pure=False)
        assert future.result() == (False, None, array.sum())
    assert client.submit(look, array, pure=False).result()[0]


def test_a_shared_object_weighs_what_sizeof_says_without_being_read():
    frame = pd.DataFrame({"a": np.zeros(100_000), "b": "text"})
    for obj in (np.zeros(100_000), frame, [np.zeros(100_000), "text"]):
        shared = mori.share(obj)
        assert sizeof(shared) < 1000
        with dask.config.set({"mori.dask.sizeof": "full"}):
            assert 800_000 <= sizeof(shared) < 3_000_000
            assert sizeof(shared[10:20]) < 300_000 or isinstance(shared, mori.SharedList)


def test_doctor_tries_dask_and_names_a_key_that_cannot_be_used(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(doctor, "ADAPTERS", {"distributed": "mori_dask"})
    assert main(["doctor", "--engines", "--json"]) == 0
    (check,) = (one for one in json.loads(capsys.readouterr().out) if one["what"] == "distributed")
    assert check["verdict"] == "ok"
    assert f"mori_dask works with distributed {distributed.__version__}" in check["found"]
    monkeypatch.setenv("DASK_MORI__DASK__SPILL", "never")
    (wrong,) = doctor._engines()
    assert wrong.verdict == "fail"
    assert "mori.dask.spill='never'" in wrong.found
