"""Promises of SUV: the factors are those of published reference objects and of formulas, and no header ends in a traceback."""

from __future__ import annotations

import doctest
import json
import math
import re
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import pytest
from helpers import SHARED, needs_shared
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom import Dataset
from pydicom.datadict import dictionary_VR

import petct_cascade.dicom.body_size
import petct_cascade.dicom.moments
import petct_cascade.dicom.suv
from petct_cascade.dicom.suv import SuvOptions, implausible, suv_conversion
from petct_training.errors import InputError

REFERENCES = SHARED / "data/suv_reference_objects"
SARCOMA_DICOM = SHARED / "data/soft_tissue_sarcoma_dicom"
OBJECTS = ("0_0", "1_0", "2_0", "2_1", "2_3", "2_4", "2_5", "3_0", "3_1", "3_2", "3_4", "4_1", "4_2", "5_0")
# What pydicom says of damaged values, at which these tests are aimed.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:pydicom")
HALF_LIFE = 6586.2
WEIGHT, DOSE = 70, 350e6
# SUV of 1 Bq/ml, were there no decay.
BY_DOSE = 1000 * WEIGHT / DOSE
HOUR = 3600


def slices(count: int = 1, injection: dict | None = None, **attributes: object) -> list[Dataset]:
    """Headers of a series of FDG, injected at 10:00, scanned at 11:00; None takes an attribute away."""
    stated = {
        "Units": "BQML",
        "DecayCorrection": "START",
        "CorrectedImage": ["DECY", "ATTN"],
        "PatientWeight": WEIGHT,
        "PatientSize": 1.75,
        "PatientSex": "M",
        "SeriesDate": "20250101",
        "SeriesTime": "110000",
        "AcquisitionDate": "20250101",
        "AcquisitionTime": "110000",
        "ActualFrameDuration": 300000,
    } | attributes
    headers = []
    for _ in range(count):
        item = Dataset()
        of_injection = {
            "Radiopharmaceutical": "FDG",
            "RadiopharmaceuticalStartDateTime": "20250101100000",
            "RadionuclideTotalDose": DOSE,
            "RadionuclideHalfLife": HALF_LIFE,
        } | (injection or {})
        for data, values in ((header := Dataset(), stated), (item, of_injection)):
            for keyword, value in values.items():
                if value is not None:
                    setattr(data, keyword, value)
        header.RadiopharmaceuticalInformationSequence = [item]
        headers.append(header)
    return headers


def left_after(seconds: float, half_life: float = HALF_LIFE) -> float:
    """The part of the activity that is left."""
    return 2 ** (-seconds / half_life)


def factor_of(headers: list[Dataset], **options: object) -> float:
    conversion = suv_conversion(headers, SuvOptions(**options))
    assert len(conversion.factors) == len(headers)
    return float(conversion.factors[0])


def test_examples_of_the_docstrings():
    for module in (petct_cascade.dicom.suv, petct_cascade.dicom.moments, petct_cascade.dicom.body_size):
        assert doctest.testmod(module).failed == 0


# ---------------------------------------------------------------- reference objects


def read_suv(folder: Path) -> tuple[np.ndarray, np.ndarray, list[Dataset]]:
    """SUV (X, Y, Z), affine (RAS) and headers of a series."""
    headers = sorted((pydicom.dcmread(file) for file in folder.iterdir()), key=lambda header: header.ImagePositionPatient[2])
    factors = suv_conversion(headers).factors
    planes = [
        (header.pixel_array.T * float(header.RescaleSlope) + float(header.RescaleIntercept)) * factor
        for header, factor in zip(headers, factors, strict=True)
    ]
    first, last = headers[0], headers[-1]
    origin, end = (np.array(header.ImagePositionPatient, dtype=float) for header in (first, last))
    affine = np.eye(4)
    affine[:3, 0] = np.array(first.ImageOrientationPatient[:3], dtype=float) * first.PixelSpacing[1]
    affine[:3, 1] = np.array(first.ImageOrientationPatient[3:], dtype=float) * first.PixelSpacing[0]
    affine[:3, 2] = (end - origin) / (len(headers) - 1)
    affine[:3, 3] = origin
    return np.stack(planes, axis=-1), np.diag([-1, -1, 1, 1]) @ affine, headers


@needs_shared(REFERENCES)
@pytest.mark.parametrize("name", OBJECTS)
def test_reference_objects_have_the_suv_that_is_published(name):
    folder = REFERENCES / f"DRO_{name}"
    suv, affine, _ = read_suv(folder / "PT")
    mask = nib.load(folder / "mask/DRO_mask.nii.gz")
    # From the mask's voxels through space to those of the PET.
    inside = np.argwhere(np.asarray(mask.dataobj) > 0)
    indices = np.rint(nib.affines.apply_affine(np.linalg.inv(affine) @ mask.affine, inside)).astype(int)
    values = suv[tuple(indices.T)]
    found = [values.min(), np.median(values), values.max()]
    # One is stored so coarsely that its values are 0.19, 0.98 and 3.98.
    assert found == pytest.approx([0.2, 1, 4], abs=0.03 if name == "2_3" else 0.01)


@needs_shared(SARCOMA_DICOM)
@pytest.mark.parametrize("patient", ["STS_002", "STS_019"])
def test_real_series_of_suv_stays_as_it_is(patient):
    headers = [pydicom.dcmread(file, stop_before_pixels=True) for file in (SARCOMA_DICOM / patient / "PET/image").iterdir()]
    conversion = suv_conversion(headers)
    assert (conversion.factors == 1).all()
    assert 60 < conversion.facts["delay_min"] < 120


# ---------------------------------------------------------------- decay


def test_activity_corrected_to_the_start_is_divided_by_the_dose_of_that_time():
    assert factor_of(slices()) == pytest.approx(BY_DOSE / left_after(HOUR))


def test_activity_corrected_to_the_injection_is_divided_by_the_injected_dose():
    assert factor_of(slices(DecayCorrection="ADMIN")) == pytest.approx(BY_DOSE)


def test_activity_without_correction_is_corrected_slice_by_slice():
    headers = slices(2, DecayCorrection="NONE", CorrectedImage=["ATTN"])
    headers[1].AcquisitionTime = "111000"
    exponent = math.log(2) / HALF_LIFE * 300
    mean = exponent / (1 - math.exp(-exponent))
    expected = [mean * BY_DOSE / left_after(HOUR), mean * BY_DOSE / left_after(HOUR + 600)]
    conversion = suv_conversion(headers)
    assert conversion.factors == pytest.approx(expected)
    assert conversion.facts["factor"] == pytest.approx({"first": expected[0], "min": expected[0], "max": expected[1]})
    assert conversion.warnings == []


def test_time_of_a_series_made_later_is_not_taken():
    headers = slices(2, SeriesTime="130000", AcquisitionTime="110500")
    headers[1].AcquisitionTime = "110000"
    conversion = suv_conversion(headers)
    assert conversion.factors[0] == pytest.approx(BY_DOSE / left_after(HOUR))
    assert conversion.facts["rule"] == "first_acquisition"
    assert conversion.facts["other_rules"]["series_time"] == pytest.approx(100 * (left_after(-2 * HOUR) - 1), abs=0.01)
    assert "compare" in conversion.warnings[0]


@pytest.mark.parametrize("creator", ["GEMS_PETD_01", None])
@pytest.mark.parametrize("text", ["20250101104500.00", "20240606104500", "104500"])
def test_scan_time_of_ge_is_taken_where_the_series_was_made_later(creator, text):
    headers = slices(SeriesTime="130000")
    if creator:
        headers[0].add_new(0x00090010, "LO", creator)
    headers[0].add_new(0x0009100D, "UN", text.encode())
    assert factor_of(headers) == pytest.approx(BY_DOSE / left_after(0.75 * HOUR))


def test_block_of_another_owner_is_not_taken_for_that_of_ge():
    headers = slices(SeriesTime="130000")
    headers[0].add_new(0x00090010, "LO", "ANOTHER")
    headers[0].add_new(0x0009100D, "DT", "20250101104500")
    assert factor_of(headers) == pytest.approx(BY_DOSE / left_after(HOUR))
    headers[0].add_new(0x00090011, "LO", "GEMS_PETD_01")
    headers[0].add_new(0x0009110D, "DT", "20250101104500")
    assert factor_of(headers) == pytest.approx(BY_DOSE / left_after(0.75 * HOUR))


@pytest.mark.parametrize("length", [22, 1030])
def test_length_of_a_private_group_is_no_scan_time(length):
    headers = slices(SeriesTime="130000")
    headers[0].add_new(0x00090000, "UL", length)
    headers[0].add_new(0x00090010, "LO", "ANOTHER")
    conversion = suv_conversion(headers)
    assert conversion.facts["rule"] == "first_acquisition"
    assert conversion.factors[0] == pytest.approx(BY_DOSE / left_after(HOUR))


@pytest.mark.parametrize(
    "dates", [{"SeriesDate": "20190101"}, {"AcquisitionDate": "19000101"}, {"SeriesDate": "20241229"}, {"SeriesDate": "20250104"}]
)
def test_dates_that_contradict_each_other_leave_a_warning_with_the_other_suv(dates):
    injection = {"RadiopharmaceuticalStartDateTime": None, "RadiopharmaceuticalStartTime": "100000"}
    conversion = suv_conversion(slices(1, injection, AcquisitionTime="112000", **dates))
    assert conversion.facts["rule"] == "first_acquisition"
    assert conversion.factors[0] == pytest.approx(BY_DOSE / left_after(4 / 3 * HOUR))
    assert conversion.facts["other_rules"]["series_time"] == pytest.approx(100 * (left_after(HOUR / 3) - 1), abs=0.01)
    assert "-11.9 % with the series' time" in conversion.warnings[0]


def test_reference_time_of_frames_leads_back_to_the_start():
    # The second bed position, acquired from 11:05 on. Its activity is at its mean a bit before its middle.
    exponent = math.log(2) / HALF_LIFE * 300
    until_mean = math.log(exponent / (1 - math.exp(-exponent))) / (math.log(2) / HALF_LIFE)
    headers = slices(SeriesTime="130000", AcquisitionTime="110500", FrameReferenceTime=1000 * (300 + until_mean))
    conversion = suv_conversion(headers)
    assert conversion.facts["rule"] == "frame_reference_time"
    assert conversion.factors[0] == pytest.approx(BY_DOSE / left_after(HOUR), rel=1e-5)


def test_reference_time_of_frames_of_zero_says_nothing():
    headers = slices(SeriesTime="130000", FrameReferenceTime=0)
    assert suv_conversion(headers).facts["rule"] == "first_acquisition"


def test_time_that_an_enhanced_image_states_for_its_correction_is_taken():
    headers = slices(DecayCorrection=None, DecayCorrected="YES", DecayCorrectionDateTime="20250101103000")
    assert factor_of(headers) == pytest.approx(BY_DOSE / left_after(HOUR / 2))


@pytest.mark.parametrize("stated", ["110000", "110000.250000", "11:00:00", "1100", "11"])
def test_times_are_read_however_they_are_written(stated):
    assert factor_of(slices(SeriesTime=stated, AcquisitionTime=stated)) == pytest.approx(BY_DOSE / left_after(HOUR), rel=1e-4)


@pytest.mark.parametrize("absent", [("AcquisitionDate",), ("AcquisitionDate", "SeriesDate"), ("SeriesDate",)])
@pytest.mark.parametrize("study", ["20250101", None])
def test_dates_that_are_absent_are_taken_from_elsewhere(absent, study):
    headers = slices(StudyDate=study, **dict.fromkeys(absent))
    assert factor_of(headers) == pytest.approx(BY_DOSE / left_after(HOUR))


def test_acquisition_without_a_date_may_lie_behind_midnight():
    headers = slices(
        2,
        {"RadiopharmaceuticalStartDateTime": None, "RadiopharmaceuticalStartTime": "225000"},
        AcquisitionDate=None,
        SeriesTime="235000",
        AcquisitionTime="235000",
    )
    headers[1].AcquisitionTime = "000500"
    conversion = suv_conversion(headers)
    assert conversion.factors[0] == pytest.approx(BY_DOSE / left_after(HOUR))
    assert conversion.facts["rule"] == "series_time"


# ---------------------------------------------------------------- injection


def test_injection_of_the_evening_belongs_to_the_scan_after_midnight():
    injection = {"RadiopharmaceuticalStartDateTime": None, "RadiopharmaceuticalStartTime": "233000"}
    headers = slices(1, injection, SeriesTime="003000", AcquisitionTime="003000")
    assert factor_of(headers) == pytest.approx(BY_DOSE / left_after(HOUR))


@pytest.mark.parametrize("date", ["20250102", "20241231", "19000101"])
def test_date_of_injection_that_cannot_be_right_is_not_believed(date):
    headers = slices(1, {"RadiopharmaceuticalStartDateTime": f"{date}100000"})
    assert factor_of(headers) == pytest.approx(BY_DOSE / left_after(HOUR))


@pytest.mark.parametrize("dummy", ["19000101000000", "19000101120000", "20241201103000"])
def test_time_of_injection_is_believed_before_that_of_a_date_that_lies(dummy):
    injection = {"RadiopharmaceuticalStartDateTime": dummy, "RadiopharmaceuticalStartTime": "100000"}
    assert factor_of(slices(1, injection)) == pytest.approx(BY_DOSE / left_after(HOUR))


@pytest.mark.parametrize(("time", "percent"), [("103000", "-17.3 %"), ("093000", "+20.9 %")])
def test_two_times_of_injection_leave_a_warning_with_the_other_suv(time, percent):
    conversion = suv_conversion(slices(1, {"RadiopharmaceuticalStartTime": time}))
    assert conversion.factors[0] == pytest.approx(BY_DOSE / left_after(HOUR))
    said = f"at {time[:2]}:30:00 (RadiopharmaceuticalStartTime): the first is taken, and its SUV would differ by {percent}"
    assert [said in warning for warning in conversion.warnings] == [True]
    assert suv_conversion(slices(1, {"RadiopharmaceuticalStartTime": "100030"})).warnings == []


def test_injection_shortly_after_the_scan_is_a_clock_that_is_wrong():
    conversion = suv_conversion(slices(1, {"RadiopharmaceuticalStartDateTime": "20250101110500"}))
    assert conversion.factors[0] == pytest.approx(BY_DOSE / left_after(-300))
    assert "before the injection" in conversion.warnings[0]


def test_offset_from_utc_counts_where_the_scanners_is_known():
    injection = {"RadiopharmaceuticalStartDateTime": "20250101090000+0000"}
    assert factor_of(slices(1, injection, TimezoneOffsetFromUTC="+0100")) == pytest.approx(BY_DOSE / left_after(HOUR))
    injection = {"RadiopharmaceuticalStartDateTime": "20250101100000+0000"}
    assert factor_of(slices(1, injection)) == pytest.approx(BY_DOSE / left_after(HOUR))


def test_long_lived_tracer_keeps_its_date():
    injection = {"RadiopharmaceuticalStartDateTime": "20241229110000", "RadionuclideHalfLife": 282240}
    assert factor_of(slices(1, injection)) == pytest.approx(BY_DOSE / left_after(72 * HOUR, 282240))
    with pytest.raises(InputError, match="injection_time"):
        suv_conversion(slices(1, injection | {"RadiopharmaceuticalStartDateTime": "20200101110000"}))


def test_injection_long_before_is_refused():
    injection = {"RadiopharmaceuticalStartDateTime": None, "RadiopharmaceuticalStartTime": "113000"}
    with pytest.raises(InputError, match="1410 minutes after the injection"):
        suv_conversion(slices(1, injection))


@pytest.mark.parametrize(("time", "warned"), [("093000", False), ("075000", True), ("104500", True)])
def test_unusual_delay_of_fdg_is_warned_of(time, warned):
    injection = {"RadiopharmaceuticalStartDateTime": f"20250101{time}"}
    assert bool(suv_conversion(slices(1, injection)).warnings) == warned
    assert not suv_conversion(slices(1, injection | {"Radiopharmaceutical": "PSMA-1007"})).warnings


def test_several_injections_are_refused():
    headers = slices()
    headers[0].RadiopharmaceuticalInformationSequence = [headers[0].RadiopharmaceuticalInformationSequence[0], Dataset()]
    with pytest.raises(InputError, match="2 injections"):
        suv_conversion(headers)


def two_injections() -> list[Dataset]:
    """Headers that list two injections: 350 MBq at 10:00, and 100 MBq at 09:00."""
    headers = slices(2)
    for header in headers:
        other = slices(1, {"RadionuclideTotalDose": 100e6, "RadiopharmaceuticalStartDateTime": "20250101090000"})[0]
        header.RadiopharmaceuticalInformationSequence.append(other.RadiopharmaceuticalInformationSequence[0])
    return headers


def test_options_say_which_of_several_injections_it_is():
    given = {"dose": 350, "half_life": HALF_LIFE, "injection_time": "10:00"}
    with pytest.raises(InputError, match=r"lists 2 injections.*: give .* with --dose, --half_life, --injection_time, or export"):
        suv_conversion(two_injections())
    for left_out in given:
        others = {name: value for name, value in given.items() if name != left_out}
        with pytest.raises(InputError, match=rf"2 injections.* with --{left_out}, or export"):
            suv_conversion(two_injections(), SuvOptions(**others))
    conversion = suv_conversion(two_injections(), SuvOptions(**given))
    assert conversion.factors == pytest.approx([BY_DOSE / left_after(HOUR)] * 2)
    assert ["1e+08 (RadionuclideTotalDose), in whose place 350 of --dose" in warning for warning in conversion.warnings] == [True]
    # SUV that is stored needs none of them.
    headers = two_injections()
    for header in headers:
        header.Units = "GML"
    assert factor_of(headers) == 1


def test_half_life_in_minutes_is_told_with_its_option():
    with pytest.raises(
        InputError, match=r"half-life of 2 minutes: give it with --injection_time.*, or the half-life with --half_life"
    ):
        suv_conversion(slices(1, {"RadionuclideHalfLife": 109.77}))


# ---------------------------------------------------------------- units


@pytest.mark.parametrize(
    ("kind", "sex", "mass"),
    [
        ("LBM", "M", 1.10 * 70 - 120 * (70 / 175) ** 2),
        ("LBM", "F", 1.07 * 70 - 148 * (70 / 175) ** 2),
        ("LBMJAMES128", "M", 1.10 * 70 - 128 * (70 / 175) ** 2),
        ("LBMJAMES128", "O", (1.10 * 70 - 128 * (70 / 175) ** 2 + 1.07 * 70 - 148 * (70 / 175) ** 2) / 2),
        ("LBMJANMA", "M", 9270 * 70 / (6680 + 216 * 70 / 1.75**2)),
        ("LBMJANMA", "F", 9270 * 70 / (8780 + 244 * 70 / 1.75**2)),
        ("IBW", "M", 48 + 1.06 * (175 - 152)),
        ("IBW", "F", 45.5 + 0.91 * (175 - 152)),
        ("BW", "O", 70),
        (None, "O", 70),
    ],
)
def test_suv_of_another_kind_becomes_that_of_body_weight(kind, sex, mass):
    assert factor_of(slices(Units="GML", SUVType=kind, PatientSex=sex)) == pytest.approx(70 / mass)


def test_suv_by_the_bodys_surface_becomes_that_of_body_weight():
    surface_cm2 = 71.84 * 70**0.425 * 175**0.725
    assert factor_of(slices(Units="CM2ML", SUVType="BSA")) == pytest.approx(70_000 / surface_cm2)


@pytest.mark.parametrize("creator", ["Philips PET Private Group", None])
@pytest.mark.parametrize(("vr", "value"), [("DS", "0.0005"), ("UN", b"0.0005 "), ("FD", 0.0005)])
def test_counts_of_philips_become_suv(creator, vr, value):
    headers = slices(Units="CNTS")
    if creator:
        headers[0].add_new(0x70530010, "LO", creator)
    headers[0].add_new(0x70531000, vr, value)
    headers[0].add_new(0x70531009, "DS", "3")
    assert factor_of(headers) == pytest.approx(0.0005)
    # Without a factor of SUV, that of activity is taken.
    headers[0].add_new(0x70531000, "DS", "0")
    assert factor_of(headers) == pytest.approx(3 * BY_DOSE / left_after(HOUR))


def test_counts_without_a_factor_are_refused():
    with pytest.raises(InputError, match="7053,1000 and 7053,1009"):
        suv_conversion(slices(Units="CNTS"))


@pytest.mark.parametrize("unit", ["CPS", "PROPCNTS", "nonsense"])
def test_other_units_are_refused(unit):
    with pytest.raises(InputError, match=r"unit.*BQML"):
        suv_conversion(slices(Units=unit))


def test_dose_in_megabecquerel_and_weight_in_grams_are_understood():
    conversion = suv_conversion(slices(1, {"RadionuclideTotalDose": DOSE / 1e6}, PatientWeight=1000 * WEIGHT))
    assert conversion.factors[0] == pytest.approx(BY_DOSE / left_after(HOUR))
    assert "taken as grams" in conversion.warnings[0]
    assert "taken as MBq" in conversion.warnings[1]


@pytest.mark.parametrize("weight", [None, 0, "", -70, 800])
def test_series_without_a_weight_is_refused(weight):
    with pytest.raises(InputError, match="--weight, in kg"):
        suv_conversion(slices(PatientWeight=weight))


@pytest.mark.parametrize(
    ("attribute", "value", "remedy"),
    [
        ("RadionuclideTotalDose", None, "--dose, in MBq"),
        ("RadionuclideTotalDose", "1e300", "has an injected dose of 1e.* --dose, in MBq"),
        ("RadionuclideHalfLife", 0, "--half_life, in s"),
        ("RadiopharmaceuticalStartDateTime", "soon", "--injection_time, as HH:MM"),
    ],
)
def test_what_lacks_is_named_with_its_option(attribute, value, remedy):
    with pytest.raises(InputError, match=remedy):
        suv_conversion(slices(1, {attribute: value}))


@pytest.mark.parametrize("attribute", ["Units", "DecayCorrection"])
def test_slices_that_say_different_things_are_refused(attribute):
    headers = slices(2)
    setattr(headers[1], attribute, "GML" if attribute == "Units" else "ADMIN")
    with pytest.raises(InputError, match="different things"):
        suv_conversion(headers)
    for header in headers:
        delattr(header, attribute)
    with pytest.raises(InputError, match="does not say"):
        suv_conversion(headers)


@pytest.mark.parametrize(
    ("attribute", "other", "said", "options"),
    [
        ("PatientWeight", 35, "35 and 70", {"weight": WEIGHT}),
        ("RadionuclideTotalDose", DOSE / 2, "1.75e+08 and 3.5e+08", {"dose": DOSE / 1e6}),
        ("RadionuclideHalfLife", 4057.7, "4057.7 and 6586.2", {"half_life": HALF_LIFE}),
        (
            "RadiopharmaceuticalStartDateTime",
            "20250101093000",
            "2025-01-01T09:30:00 and 2025-01-01T10:00:00",
            {"injection_time": "10:00"},
        ),
        ("RadiopharmaceuticalStartTime", "093000", "09:30:00 and 10:00:00", {"injection_time": "10:00"}),
        ("SeriesTime", "100000", "2025-01-01T10:00:00 and 2025-01-01T11:00:00", None),
        ("SeriesDate", "20250102", "2025-01-01T11:00:00 and 2025-01-02T11:00:00", None),
        ("TimezoneOffsetFromUTC", "+0200", "'+0100' and '+0200'", None),
    ],
)
def test_slices_that_state_different_numbers_or_times_are_refused_until_an_option_says_which(attribute, other, said, options):
    headers = slices(4, {"RadiopharmaceuticalStartTime": "100000"}, TimezoneOffsetFromUTC="+0100")
    for header in headers[2:]:
        item = header.RadiopharmaceuticalInformationSequence[0]
        setattr(item if attribute.startswith("Radio") else header, attribute, other)
    with pytest.raises(InputError, match=re.escape(said)) as refused:
        suv_conversion(headers)
    assert "says different things in its slices" in str(refused.value)
    assert "export it again" in str(refused.value)
    if options:
        assert f"give it with --{next(iter(options))}" in str(refused.value)
        assert suv_conversion(headers, SuvOptions(**options)).factors == pytest.approx([BY_DOSE / left_after(HOUR)] * 4)
    # Whichever slice comes first.
    with pytest.raises(InputError, match=re.escape(said)):
        suv_conversion(headers[::-1])


@pytest.mark.parametrize(("attribute", "other"), [("PatientSize", 1.5), ("PatientSex", "F"), ("PatientWeight", 35)])
def test_slices_that_state_different_bodies_are_refused_where_suv_needs_the_body(attribute, other):
    headers = slices(4, Units="GML", SUVType="LBMJANMA")
    for header in headers[2:]:
        setattr(header, attribute, other)
    with pytest.raises(
        InputError, match=rf"different things in its slices, .* \({attribute}\): export it again, or give it with --"
    ):
        suv_conversion(headers)
    given = {"weight": 70, "height": 1.75, "sex": "M"}
    assert factor_of(headers, **given) == pytest.approx((6680 + 216 * 70 / 1.75**2) / 9270)
    # No number is refused that nobody needs.
    for header in headers:
        header.SUVType = "BW"
    assert factor_of(headers) == 1


def test_what_nobody_needs_may_differ_from_slice_to_slice():
    headers = slices(2, DecayCorrection="ADMIN")
    headers[1].SeriesTime = "100000"
    headers[1].TimezoneOffsetFromUTC, headers[0].TimezoneOffsetFromUTC = "+0100", "+0200"
    for attribute, value in (("RadionuclideHalfLife", 4057.7), ("RadiopharmaceuticalStartDateTime", "20250101093000")):
        setattr(headers[1].RadiopharmaceuticalInformationSequence[0], attribute, value)
    assert factor_of(headers) == pytest.approx(BY_DOSE)
    # Times of series that were made later are not those of the scan.
    headers = slices(2, SeriesTime="130000")
    headers[1].SeriesTime = "131500"
    conversion = suv_conversion(headers)
    assert (conversion.facts["rule"], conversion.factors[0]) == ("first_acquisition", pytest.approx(BY_DOSE / left_after(HOUR)))
    # With and without fractions of a second.
    headers = slices(2)
    headers[1].SeriesTime = "110000.250000"
    assert factor_of(headers) == pytest.approx(BY_DOSE / left_after(HOUR))


def test_scan_times_of_ge_that_differ_are_refused_where_they_are_needed():
    headers = slices(2, SeriesTime="130000")
    for header, scan in zip(headers, ("20250101103000", "20250101104500"), strict=True):
        header.add_new(0x00090010, "LO", "GEMS_PETD_01")
        header.add_new(0x0009100D, "DT", scan)
    with pytest.raises(InputError, match="of GE's scan time, 2025-01-01T10:30:00 and 2025-01-01T10:45:00: export it again"):
        suv_conversion(headers)
    for header in headers:
        header.SeriesTime = "110000"
    assert factor_of(headers) == pytest.approx(BY_DOSE / left_after(HOUR))


@pytest.mark.parametrize("silent", [None, 0])
def test_number_that_some_slices_state_counts_for_all(silent):
    headers = slices(16)
    for header in headers[:3]:
        header.PatientWeight = silent
        header.RadiopharmaceuticalInformationSequence = []
    conversion = suv_conversion(headers)
    assert conversion.factors == pytest.approx([BY_DOSE / left_after(HOUR)] * 16)
    assert conversion.facts["weight_kg"] == WEIGHT


@pytest.mark.parametrize(
    ("attributes", "words"),
    [
        ({"CorrectedImage": ["DECY"]}, "attenuation"),
        ({"CorrectedImage": ["ATTN"]}, "decay"),
        ({"CorrectedImage": None}, "does not list its corrections"),
        ({"DecayCorrection": "NONE"}, "both"),
    ],
)
def test_missing_corrections_are_warned_of(attributes, words):
    assert words in suv_conversion(slices(**attributes)).warnings[0]


# ---------------------------------------------------------------- options


def test_options_replace_what_the_header_says():
    headers = slices()
    given = {"weight": 80, "dose": 200, "half_life": 4057.7, "injection_time": "10:30"}
    conversion = suv_conversion(headers, SuvOptions(**given))
    assert conversion.factors[0] == pytest.approx(80_000 / 200e6 / left_after(HOUR / 2, 4057.7))
    assert conversion.facts["given"] == list(given)
    assert factor_of(headers, injection_time="2025-01-01T10:30:00") == pytest.approx(BY_DOSE / left_after(HOUR / 2))
    for header in headers:
        del header.RadiopharmaceuticalInformationSequence, header.PatientWeight
    assert suv_conversion(headers, SuvOptions(**given)).factors == pytest.approx(conversion.factors)


def test_injection_time_that_is_given_and_cannot_be_right_is_refused():
    with pytest.raises(InputError, match="minutes after the injection"):
        suv_conversion(slices(), SuvOptions(injection_time="2024-01-01T10:30"))


@pytest.mark.parametrize(("name", "factor"), [("weight", 2), ("dose", 2), ("half_life", 2)])
def test_an_option_in_place_of_another_number_of_the_header_leaves_a_warning_with_both(name, factor):
    stated = {"weight": WEIGHT, "dose": DOSE / 1e6, "half_life": suv_conversion(slices(), SuvOptions()).facts["half_life_s"]}[
        name
    ]
    assert not suv_conversion(slices(), SuvOptions(**{name: stated})).warnings
    (warning,) = suv_conversion(slices(), SuvOptions(**{name: factor * stated})).warnings
    assert f"in whose place {factor * stated:g} of --{name} is taken: check which one is right" in warning
    words = {"weight": "a patient weight", "dose": "an injected dose", "half_life": "a half-life"}[name]
    assert warning.startswith(f"states {words} of ")


def test_options_without_effect_are_warned_of():
    warnings = suv_conversion(slices(Units="GML"), SuvOptions(dose=300, weight=70)).warnings
    assert ["--dose" in warnings[0], "--weight" in warnings[1]] == [True, True]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("weight", value) for value in (0, -1, math.nan, math.inf, 7000, True, "70")),
        *(("height", value) for value in (0, 175)),
        *(("dose", value) for value in (0, 3e8)),
        *(("half_life", value) for value in (0, 1.8)),
        *(("sex", value) for value in ("male", "")),
        *(("injection_time", value) for value in ("", "25:00", "10h", "2025-02-31T10:00", 10)),
    ],
)
def test_senseless_options_are_refused_by_name(name, value):
    with pytest.raises(InputError, match=f"^--{name} is "):
        SuvOptions(**{name: value})


# ---------------------------------------------------------------- facts


def test_facts_tell_what_was_used():
    facts = suv_conversion(slices()).facts
    assert json.loads(json.dumps(facts)) == facts
    assert facts["reference_time"] == "2025-01-01T11:00:00"
    assert facts["injection_time"] == "2025-01-01T10:00:00"
    assert (facts["delay_min"], facts["weight_kg"], facts["dose_mbq"], facts["rule"]) == (60, 70, 350, "series_time")
    assert facts["decayed_dose_mbq"] == pytest.approx(350 * left_after(HOUR))
    assert facts["other_rules"] == {"first_acquisition": 0}


def test_times_without_a_date_are_told_without_one():
    facts = suv_conversion(slices(AcquisitionDate=None, SeriesDate=None)).facts
    assert (facts["reference_time"], facts["injection_time"]) == ("11:00:00", "10:00:00")


@pytest.mark.parametrize(("highest", "median", "count"), [(30, 0.7, 0), (30, 40, 1), (0.5, 0.01, 2), (math.nan, math.nan, 2)])
def test_values_that_cannot_be_suv_are_implausible(highest, median, count):
    assert len(implausible(highest, median)) == count


# ---------------------------------------------------------------- damage

KEYWORDS = (
    *("Units", "DecayCorrection", "CorrectedImage", "PatientWeight", "PatientSize", "PatientSex", "SUVType", "StudyDate"),
    *("SeriesDate", "SeriesTime", "AcquisitionDate", "AcquisitionTime", "AcquisitionDateTime", "ActualFrameDuration"),
    *("FrameReferenceTime", "TimezoneOffsetFromUTC", "DecayCorrectionDateTime", "RadiopharmaceuticalStartDateTime"),
    *("RadiopharmaceuticalStartTime", "RadionuclideTotalDose", "RadionuclideHalfLife", "Radiopharmaceutical"),
)
PRIVATE = (0x70530010, 0x70531000, 0x70531009, 0x00090010, 0x0009100D)
VALUES = st.one_of(
    st.sampled_from(
        ["", "0", "-1", "1e300", "1e-300", "nan", "inf", "x", "00010101", "99991231235959", "235959.999999", "+9999"]
    ),
    st.sampled_from(["GML", "CM2ML", "CNTS", "LBM", "LBMJAMES128", "LBMJANMA", "IBW", "NONE", "ADMIN", "YES", "F", "O"]),
    st.sampled_from(
        ["20250101105959", "20250101110001.5+1400", "104500", "0.001", "600000", "86400000", "41401", "30000000", "61"]
    ),
    st.text(max_size=20),
    st.floats().map(repr),
    st.integers(0, 10**10).map(str),
)


@settings(max_examples=300, deadline=None)
@given(
    changes=st.dictionaries(st.sampled_from((*KEYWORDS, *PRIVATE)), VALUES, max_size=6),
    second=st.dictionaries(st.sampled_from((*KEYWORDS, *PRIVATE)), VALUES, max_size=3),
    raw=st.booleans(),
    sequence=st.sampled_from(["kept", "absent", "empty", "bytes"]),
    given_options=st.sampled_from([{}, {"weight": 70, "dose": 300, "half_life": 61, "injection_time": "23:59"}]),
)
def test_no_header_ends_in_anything_but_a_sentence(changes, second, raw, sequence, given_options):
    headers = slices(2)
    for header, values in zip(headers, (changes, second), strict=True):
        for name, value in values.items():
            damage(header, name, value, raw)
        if sequence == "absent":
            del header.RadiopharmaceuticalInformationSequence
        elif sequence == "empty":
            header.RadiopharmaceuticalInformationSequence = []
        elif sequence == "bytes":
            replace_raw(header, "RadiopharmaceuticalInformationSequence", b"\xfe\xff\x00\xe0garbage")
    try:
        conversion = suv_conversion(headers, SuvOptions(**given_options))
    except InputError:
        return
    assert conversion.factors.shape == (2,)
    assert (conversion.factors > 0).all()
    assert np.isfinite(conversion.factors).all()
    json.dumps(conversion.facts, allow_nan=False)


def damage(header: Dataset, name: str | int, value: str, raw: bool) -> None:
    """Put a value into a header or its injection: as bytes read from a file, or as far as pydicom lets it be put."""
    item = header.RadiopharmaceuticalInformationSequence[0]
    data = item if isinstance(name, str) and name.startswith("Radio") else header
    if raw or isinstance(name, int):
        replace_raw(data, name, value.encode("utf-8", "replace"))
        return
    try:
        setattr(data, name, value)
    except Exception:  # pydicom refuses some itself.
        replace_raw(data, name, value.encode("utf-8", "replace"))


def replace_raw(data: Dataset, name: str | int, value: bytes) -> None:
    """Put bytes in place of an attribute, as they are after a file was read."""
    tag = pydicom.tag.Tag(name)
    vr = dictionary_VR(tag) if isinstance(name, str) else "UN"
    data._dict[tag] = pydicom.dataelem.RawDataElement(tag, vr, len(value), value, 0, False, True)
