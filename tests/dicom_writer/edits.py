"""Changes to the header of a slice, and to the list of slices, from which variants are made."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Sequence
from copy import deepcopy

import numpy as np
from pydicom import DataElement, Dataset

from dicom_writer.headers import make_uid, number_text, without

Edit = Callable[[Dataset], None]
Change = Callable[[list[Dataset]], list[Dataset]]


def setting(**attributes: object) -> Edit:
    """Return an edit that sets attributes."""

    def edit(ds: Dataset) -> None:
        for name, value in attributes.items():
            setattr(ds, name, value)

    return edit


def removing(*names: str | int) -> Edit:
    """Return an edit that deletes attributes, by keyword or tag, where they are."""
    return lambda ds: without(ds, names)


def in_tracer(edit: Edit) -> Edit:
    """Return an edit of the item of RadiopharmaceuticalInformationSequence."""
    return lambda ds: edit(ds.RadiopharmaceuticalInformationSequence[0])


def one_after_another(*edits: Edit) -> Edit:
    """Return an edit that makes several, in this order."""

    def edit(ds: Dataset) -> None:
        for each in edits:
            each(ds)

    return edit


def times_of_frames_in_zone(hours: int, own: int) -> Edit:
    """Return an edit of an enhanced image that writes the times of its frames in a zone, by offset from UTC, and those of the image
    without one, in its own zone.
    """

    def edit(ds: Dataset) -> None:
        ds.TimezoneOffsetFromUTC = f"{own:+03d}00"
        for group in ds.PerFrameFunctionalGroupsSequence:
            content = group.FrameContentSequence[0]
            moment = datetime.datetime.strptime(content.FrameAcquisitionDateTime, "%Y%m%d%H%M%S.%f")
            moment += datetime.timedelta(hours=hours - own)
            content.FrameAcquisitionDateTime = f"{moment:%Y%m%d%H%M%S}{hours:+03d}00"

    return edit


def flavoured(flavour: str) -> Edit:
    """Return an edit of an enhanced PET that gives each frame's type a flavour, such as RESP_GATED."""

    def edit(ds: Dataset) -> None:
        for frame in ds.SharedFunctionalGroupsSequence:
            frame.PETFrameTypeSequence[0].FrameType = ["ORIGINAL", "PRIMARY", flavour, "NONE"]

    return edit


def private_as_bytes(ds: Dataset) -> None:
    """Give the private elements the VR UN and bytes as their values, as archives do that do not know them."""
    for element in list(ds):
        if element.tag.is_private and not element.tag.is_private_creator:
            text = str(element.value)
            ds[element.tag] = DataElement(element.tag, "UN", (text + " " * (len(text) % 2)).encode())


def private_as_numbers(ds: Dataset) -> None:
    """Give Philips' private factors the VR FD."""
    for tag in (0x70531000, 0x70531009):
        if tag in ds:
            ds[tag] = DataElement(tag, "FD", float(ds[tag].value))


def second_tracer(ds: Dataset) -> None:
    """Add a second item to RadiopharmaceuticalInformationSequence."""
    item = deepcopy(ds.RadiopharmaceuticalInformationSequence[0])
    item.RadionuclideTotalDose = "120000000"
    ds.RadiopharmaceuticalInformationSequence.append(item)


def overlay_in_high_bits(ds: Dataset) -> None:
    """Store CT in 12 bits, and in the highest bit of each word an overlay, as was allowed until 2004."""
    words = np.frombuffer(ds.PixelData, "<u2") & 0x0FFF
    ds.BitsStored, ds.HighBit = 12, 11
    ds.add_new(0x60000010, "US", ds.Rows)
    ds.add_new(0x60000011, "US", ds.Columns)
    ds.add_new(0x60000040, "CS", "G")
    ds.add_new(0x60000050, "SS", [1, 1])
    ds.add_new(0x60000100, "US", 16)
    ds.add_new(0x60000102, "US", 15)
    ds.PixelData = (words | np.where(np.arange(len(words)) % 7 == 0, 0x8000, 0).astype("<u2")).astype("<u2").tobytes()


def shuffled(slices: list[Dataset]) -> list[Dataset]:
    """Return the slices in another order, numbered against their positions, as some archives send them."""
    for number, ds in enumerate(slices):
        ds.InstanceNumber = len(slices) - number
    return [slices[at] for at in np.random.default_rng(1).permutation(len(slices))]


def repeated(new_uid: bool = False, edit: Edit | None = None) -> Change:
    """Return a change that adds copies of two slices, with UIDs of their own or not, after an edit."""

    def change(slices: list[Dataset]) -> list[Dataset]:
        copies = [deepcopy(slices[at]) for at in (4, 9)]
        for ds in copies:
            if new_uid:
                ds.SOPInstanceUID = make_uid(ds.SOPInstanceUID, "copy")
            if edit is not None:
                edit(ds)
        return [*slices, *copies]

    return change


def brighter(ds: Dataset) -> None:
    """Change the pixels of a slice."""
    words = np.frombuffer(ds.PixelData, "<i2")
    ds.PixelData = (words // 2 + 100).astype("<i2").tobytes()


def repeated_with_slopes_of_other_digits(slices: list[Dataset]) -> list[Dataset]:
    """Return the slices with copies of two, whose slope has a zero more at its end."""
    for at in (4, 9):
        slices[at].RescaleSlope = f"{slices[at].RescaleSlope:.7f}"
    return repeated(True, lambda ds: setattr(ds, "RescaleSlope", f"{ds.RescaleSlope:.7f}0"))(slices)


def halved(ds: Dataset) -> None:
    """Leave the upper half of a slice's rows."""
    ds.Rows //= 2
    ds.PixelData = ds.PixelData[: 2 * ds.Rows * ds.Columns]


def without_slices(*numbers: int) -> Change:
    """Return a change that leaves out slices, counted from 0."""
    return lambda slices: [ds for at, ds in enumerate(slices) if at not in numbers]


def moved(number: int, share: float) -> Change:
    """Return a change that moves one slice by a share of the spacing towards the next."""

    def change(slices: list[Dataset]) -> list[Dataset]:
        here, there = (np.array(slices[at].ImagePositionPatient, float) for at in (number, number + 1))
        slices[number].ImagePositionPatient = [number_text(float(v)) for v in here + share * (there - here)]
        return slices

    return change


def rounded_positions(slices: list[Dataset]) -> list[Dataset]:
    """Return the slices with positions that are off by 4 micrometres, up and down by turns, as rounding leaves them; not the outer two."""
    for number, ds in enumerate(slices[1:-1]):
        *across, z = ds.ImagePositionPatient
        ds.ImagePositionPatient = [*across, number_text(float(z) + (0.004 if number % 2 else -0.004))]
    return slices


def only(numbers: Sequence[int], edit: Edit) -> Change:
    """Return a change that edits some of the slices, counted from 0."""

    def change(slices: list[Dataset]) -> list[Dataset]:
        for number in numbers:
            edit(slices[number])
        return slices

    return change


def cosines_rounded(slices: list[Dataset]) -> list[Dataset]:
    """Write the direction cosines of every second slice a millionth higher."""
    for ds in slices[::2]:
        ds.ImageOrientationPatient = [number_text(float(cosine) + 1e-6) for cosine in ds.ImageOrientationPatient]
    return slices


def as_time_frames(slices: list[Dataset]) -> list[Dataset]:
    """Return the slices three times at the same positions, ten minutes apart: a dynamic series."""
    frames = []
    for frame in range(3):
        for ds in map(deepcopy, slices):
            ds.SeriesType, ds.NumberOfTimeSlices = ["DYNAMIC", "IMAGE"], 3
            ds.ImageIndex += frame * len(slices)
            ds.InstanceNumber = ds.ImageIndex
            ds.SOPInstanceUID = make_uid(ds.SOPInstanceUID, frame)
            ds.AcquisitionTime = f"{int(ds.AcquisitionTime[:6]) + 1000 * frame:06d}.000000"
            ds.FrameReferenceTime = number_text(float(ds.FrameReferenceTime) + 600_000 * frame)
            if frame:
                brighter(ds)
            frames.append(ds)
    return frames


def as_gates(slices: list[Dataset]) -> list[Dataset]:
    """Return the slices three times at the same positions, one for each part of a breath: a gated series."""
    gates = []
    for gate in range(3):
        for ds in map(deepcopy, slices):
            ds.SeriesType, ds.TriggerTime, ds.NumberOfTimeSlots = ["GATED", "IMAGE"], str(1000 * gate), 3
            ds.ImageIndex += gate * len(slices)
            ds.InstanceNumber = ds.ImageIndex
            ds.SOPInstanceUID = make_uid(ds.SOPInstanceUID, gate)
            if gate:
                brighter(ds)
            gates.append(ds)
    return gates
