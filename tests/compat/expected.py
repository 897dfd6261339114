"""Why a test of numpy or pandas may fail on shared objects: what is meant to differ."""

from __future__ import annotations

import re
from typing import Final, NamedTuple

__all__ = ["REASONS", "Reason", "reason_of"]


class Reason(NamedTuple):
    """A class of differences, told by the test's name or by what it said."""

    name: str
    why: str
    test: str = r"(?!)"
    said: str = r"(?!)"


REASONS: Final = (
    Reason(
        "a write through a part",
        "the test writes through a slice, a transpose or `flat`: that raises, since it would be lost",
        said=r"ReadOnlyViewError|is read-only|base is read-only",
    ),
    Reason(
        "flags",
        "the test asserts `writeable` or `owndata`, or that an array of its own can be resized",
        test=r"TestFlags|TestResize|test_fill_readonly|test_writeable|test_mmap_close|test_dealloc_warning"
        r"|TestNewBufferProtocol::test_(roundtrip|padding|padded_struct_array|max_dims)|test_clip_complex"
        r"|TestMethods::test_put$|test_record_no_hash|test_flatiter_indexing_boolean_assign|TestFlat::test___array__",
        said=r"WRITEABLE|_warn_on_write|cannot resize an array",
    ),
    Reason(
        "class or identity",
        "the test asserts that something is exactly an ndarray, or that a result is the very array put in",
        test=r"CopyArgument|test_array_copy_|test_conjugate_view|test_array_base|no_override"
        r"|TestZeroRank::test_real_imag|test_test_zero_rank|test_void_scalar_empty_tuple|test_einsum_views"
        r"|test_unique_1d|test_unique_zero_sized|test_structured_non_void",
        said=r"^assert .*SharedArray.* is (not )?|is <class|classes are different",
    ),
    Reason(
        "any subclass",
        "numpy and Python treat every subclass of ndarray so: `operator.concat` adds, the C sequence protocol"
        " counts from the end twice, and `out=...` is not passed on to `__array_ufunc__`",
        test=r"test_operator_concat|TestCApiAccess|test_linear_interpolation_formula_0d_inputs",
    ),
    Reason(
        "another subclass first",
        "an operand of another subclass of ndarray answers first and leaves `out` as it is: numpy raises",
        test=r"test_dot_matmul_out",
    ),
    Reason(
        "memory",
        "`sys.getsizeof` counts no shared memory, strides may be set to reach all of the region, a region"
        " remembers the shape of its array, and a first write lets a reference to the dtype go",
        test=r"TestSizeOf|test_set_stridesattr|TestIndexing::test_small_regressions|test_for_reference_leak",
    ),
    Reason(
        "references",
        "pickled with buffers out of band, a shared array has none: a reference goes in their stead",
        test=r"test_pickle_with_buffercallback|test_f_contiguous_array",
    ),
    Reason(
        "the order of axes",
        "an array that is contiguous in neither C nor Fortran order is shared in C order",
        test=r"TestLikeFuncs",
    ),
    Reason(
        "the stand-in for np",
        "the test asks for the signature of a function, which is wrapped here, or a function of numpy gets a"
        " shared array where it makes one to write to",
        test=r"TestApplyAlongAxis::test_(subclass_preservation|axis_insertion_ma)",
        said=r"missing \d+ required positional|unexpected keyword argument 'a'|mappingproxy",
    ),
)


def reason_of(test: str, said: str) -> Reason | None:
    """Return why a test may fail; None if nobody knows."""
    for reason in REASONS:
        if re.search(reason.test, test) or re.search(reason.said, said, re.DOTALL):
            return reason
    return None
