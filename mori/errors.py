"""The faults of mori, one class each.

Every error says what was asked, what was found and what to do; its fields are attributes; it survives pickle,
so that a worker's fault reads the same at the client.
"""

from __future__ import annotations

from typing import Any, Final

__all__ = [
    "ClassNotFoundError",
    "CorruptRegionError",
    "LimitError",
    "MoriError",
    "NotShareableError",
    "ObjectColumnWarning",
    "PartNotFoundError",
    "PickleNotAllowedError",
    "ReadOnlyViewError",
    "RegionNotFoundError",
    "SavedRegionNotFoundError",
    "SettingError",
    "StoreError",
    "StoreFullError",
    "StoreWarning",
    "UnsafeRegionError",
    "readable_size",
]


def _rebuild(cls: type[MoriError], fields: dict[str, Any]) -> MoriError:
    return cls(**fields)


def readable_size(nbytes: int) -> str:
    """Return a number of bytes as people write it, such as ``8.0 MB``."""
    size = float(nbytes)
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if size < 1000 or unit == "TB":
            break
        size /= 1000
    return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"


class MoriError(Exception):
    """Base of every error that mori raises on purpose."""

    def __init__(self, text: str, **fields: Any) -> None:
        super().__init__(text)
        self._fields = fields
        for name, value in fields.items():
            setattr(self, name, value)

    def __reduce__(self) -> tuple[Any, ...]:
        text = {"text": str(self)} if type(self).__init__ is MoriError.__init__ else {}
        return _rebuild, (type(self), {**text, **self._fields})


class RegionNotFoundError(MoriError, FileNotFoundError):
    """A well-formed name or reference whose region no process holds any more.

    Attributes
    ----------
    name : str
        The name that was asked for.
    store : str
        Where it was looked for.
    """

    name: str
    store: str

    def __init__(self, *, name: str, store: str) -> None:
        super().__init__(
            f"shared region {name} not found in the {store} store of this host: every process that "
            "held it has let go, or it lives where this process cannot look (another host, "
            "container or user). Keep the shared object alive where it was made until it has been "
            "received (what R shares goes with its object, or when R ends), raise MORI_GRACE (seconds), "
            "or pickle it inside `with mori.by_value():`",
            name=name,
            store=store,
        )


class SavedRegionNotFoundError(RegionNotFoundError):
    """A pickled reference to a file that `mori.save` wrote, which is not there any more, or is another one.

    Attributes
    ----------
    path : str
        Of the file that was loaded where the reference was pickled.
    """

    path: str

    def __init__(self, *, path: str, found: str) -> None:
        MoriError.__init__(
            self,
            f"the file {path!r}, which was loaded where this object was pickled, cannot be opened here: "
            f"{found}. Keep a file under its name until everybody has opened it, and save the next one under "
            "another, or pickle the object inside `with mori.by_value():`",
            path=path,
            found=found,
        )
        self.name: str = path
        self.store: str = "path"


class CorruptRegionError(MoriError, ValueError):
    """Bytes that are no region, or a region that was damaged."""

    def __init__(self, *, name: str, found: str) -> None:
        super().__init__(
            f"shared region {name} is invalid or corrupted: {found}. Nothing was read from it; "
            "share the object, or save it, again",
            name=name,
            found=found,
        )


EXTRAS: Final = {
    "pandas": "pandas",
    "polars": "polars",
    "pyarrow": "arrow",
    "scipy": "scipy",
    "torch": "torch",
    "xarray": "xarray",
}
"""The extra of mori that installs a library."""


class ClassNotFoundError(MoriError, ImportError):
    """A class of a shared object that this process cannot import, or that has another shape here.

    Attributes
    ----------
    cls : str
        Its module and name.
    """

    cls: str

    def __init__(self, *, cls: str, found: str) -> None:
        extra = EXTRAS.get(cls.partition(".")[0])
        is_missing = extra is not None and found.startswith("ModuleNotFoundError")
        remedy = f"; install mori[{extra}]" if is_missing else ""
        super().__init__(
            f"cannot rebuild an object of the class {cls}: {found}. Make the module in which the class is "
            f"defined importable here, in the same version as where the object was shared{remedy}",
            cls=cls,
            found=found,
        )


class PartNotFoundError(MoriError, LookupError):
    """A name whose path leads out of the shared object."""

    def __init__(self, *, name: str, found: str) -> None:
        super().__init__(
            f"no part {name}: {found}. Take names from mori.shared_name(part)",
            name=name,
            found=found,
        )


class StoreError(MoriError, OSError):
    """The store cannot be used on this machine as it is configured."""

    found: str

    def __init__(self, *, store: str, found: str, remedy: str) -> None:
        super().__init__(
            f"cannot use the store {store!r}: {found}. {remedy}",
            store=store,
            found=found,
            remedy=remedy,
        )


class StoreFullError(MoriError, MemoryError):
    """Too little room for a region; nothing was left behind.

    Attributes
    ----------
    asked, free : int
        Bytes.
    """

    asked: int
    free: int

    def __init__(self, *, store: str, asked: int, free: int, remedy: str) -> None:
        super().__init__(
            f"no room for a shared region of {readable_size(asked)} ({asked} bytes) in the {store} store: "
            f"{readable_size(free)} free, after unused objects were collected. {remedy}",
            store=store,
            asked=asked,
            free=free,
            remedy=remedy,
        )


class LimitError(MoriError, OSError):
    """A limit of this process or system that is no lack of memory: open files, mappings, addresses."""

    def __init__(self, *, asked: str, found: str, remedy: str) -> None:
        super().__init__(
            f"cannot {asked}: {found}. {remedy}",
            asked=asked,
            found=found,
            remedy=remedy,
        )


class UnsafeRegionError(MoriError, PermissionError):
    """What lies under a region's name is not this user's sealed region; it was not opened."""

    def __init__(self, *, name: str, found: str) -> None:
        super().__init__(
            f"refused to open {name}: {found}. Only regular, private regions of the same user are "
            "opened; remove what lies there, or point MORI_STORE elsewhere",
            name=name,
            found=found,
        )


class NotShareableError(MoriError, TypeError):
    """A part of an object that can be neither laid out nor pickled.

    Attributes
    ----------
    path : str
        Where it sits inside the object, such as ``obj["a"][3]``.
    """

    path: str

    def __init__(
        self,
        *,
        path: str,
        found: str,
        remedy: str = "Leave that part out, or convert it to something that pickles",
    ) -> None:
        super().__init__(
            f"cannot share {path}: {found}. Nothing was shared. {remedy}",
            path=path,
            found=found,
            remedy=remedy,
        )


class ObjectColumnWarning(UserWarning):
    """A column of dtype object is built anew in every process that opens it, not mapped."""


class StoreWarning(UserWarning):
    """The store that is used by default cannot work here, and another one is used."""


class PickleNotAllowedError(MoriError, ValueError):
    """A part of a file that only code can put together again, where the caller has not allowed that.

    Attributes
    ----------
    name : str
        Of the file.
    path : str
        Where the part sits inside the object, such as ``obj["a"][3]``.
    cls : str
        The class, or function, that the pickle names first of those that are no plain data.
    """

    name: str
    path: str
    cls: str

    def __init__(self, *, name: str, path: str, cls: str) -> None:
        super().__init__(
            f"in {name}, {path} is a pickle that needs {cls}. To unpickle it runs code that the file names, "
            "and was not allowed. If you trust whoever wrote the file, open it with "
            "mori.load(path, allow_pickle=True)",
            name=name,
            path=path,
            cls=cls,
        )


class ReadOnlyViewError(MoriError, ValueError):
    """A write through a view that the shared object would never see."""

    def __init__(self) -> None:
        super().__init__(
            "this is a view of shared memory, and a write through it would be lost: shared memory "
            "is read-only. Write through the whole shared object (x[3, 0] = 1 instead of "
            "x[3][0] = 1), which makes that object private, or take a copy first (x[3].copy()), or "
            "open it with mori.writable(x), whose arrays can be written to"
        )


class SettingError(MoriError, ValueError):
    """A setting whose value cannot be used."""

    def __init__(self, *, setting: str, value: str, wanted: str) -> None:
        super().__init__(
            f"{setting}={value!r} cannot be used: expected {wanted}",
            setting=setting,
            value=value,
            wanted=wanted,
        )
