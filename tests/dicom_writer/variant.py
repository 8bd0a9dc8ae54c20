"""What differs between exports of one study: patient, tracer, times, units, coding, and whatever a header says."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from dataclasses import dataclass, field

from pydicom import Dataset
from pydicom.uid import ExplicitVRLittleEndian

from dicom_writer.physics import body_surface, decayed, lean_body_mass, mean_of_frame
from dicom_writer.study import Study

# What one count of a Philips scanner means here, Bq/ml.
ACTIVITY_OF_COUNT = 1.7


@dataclass(frozen=True)
class Person:
    """A patient: weight in kg, height in m, sex M, F or O."""

    identifier: str = "PSMA_0042"
    name: str = "Miller^Alex"
    sex: str = "M"
    weight: float = 72.0
    height: float = 1.76
    birth_date: str = "19570314"


@dataclass(frozen=True)
class Tracer:
    """What was injected: dose in Bq, half-life in s, codes of SNOMED."""

    name: str = "FDG"
    dose: float = 248.5e6
    half_life: float = 6586.2
    nuclide: tuple[str, str] = ("77004003", "^18^Fluorine")
    agent: tuple[str, str] = ("35321007", "Fluorodeoxyglucose F^18^")


@dataclass(frozen=True)
class Timing:
    """When things happened.

    Attributes:
        injection: of the tracer.
        uptake: s from the injection to the time to which the images' decay is corrected.
        lead: s from that time to the first bed's acquisition.
        series_delay: s from that time to SeriesTime. Series made after the scan have a later one.
        beds: number of bed positions, from the feet to the head.
        frame: duration of each bed's frame, s.
        pause: between beds, s.
    """

    injection: datetime.datetime = datetime.datetime(2023, 5, 4, 9, 3)
    uptake: float = 3750
    lead: float = 0
    series_delay: float = 0
    beds: int = 3
    frame: float = 120
    pause: float = 4

    @property
    def reference(self) -> datetime.datetime:
        """The time to which START corrects the decay."""
        return self.injection + datetime.timedelta(seconds=self.uptake)

    @property
    def series(self) -> datetime.datetime:
        """SeriesDate and SeriesTime."""
        return self.reference + datetime.timedelta(seconds=self.series_delay)

    def acquisition(self, index: int, slices: int) -> datetime.datetime:
        """Return when the frame of a slice began; `index` counts from the lowest."""
        bed = index * self.beds // slices
        return self.reference + datetime.timedelta(seconds=self.lead + bed * (self.frame + self.pause))


def unchanged(anything):
    """Return what is given."""
    return anything


def nothing(*_) -> None:
    """Change nothing."""


@dataclass(frozen=True)
class Variant:
    """How a study is exported; the defaults are a plain scanner's.

    Attributes:
        person, tracer, timing: who, what and when.
        manufacturer: of the PET/CT scanner.
        units: of the PET's values (0054,1001).
        suv_type: (0054,1006), or None for no such tag.
        decay_correction: START, ADMIN or NONE.
        philips_factors: which of "suv" (7053,1000) and "activity" (7053,1009) are written.
        slope_per_slice: one RescaleSlope for each PET slice, instead of one for all.
        signed: of the PET's stored values.
        ct_intercept: RescaleIntercept of the CT; stored values are signed unless it makes them positive.
        transfer_syntax: of all files.
        study_key: what UIDs depend on.
        enhanced: "CT" and "PT" if they are written as one multi-frame file.
        reshape: makes of a study the one that is written.
        edit_pet, edit_ct: change the header of each slice before it is written.
        change_pet, change_ct: make of the list of slices the list that is written.
        path: relative path of a slice by its series ("ct", "pet", ...) and its number in the list, from 1.
        beside: functions that add other series or files to the written study.
        damage: changes the written files.
        refusal: words of the sentence with which a reader must refuse the study; empty if it must be read.
        warning: words of a warning that a reader should give.
    """

    person: Person = field(default_factory=Person)
    tracer: Tracer = field(default_factory=Tracer)
    timing: Timing = field(default_factory=Timing)
    manufacturer: str = "SIEMENS"
    units: str = "BQML"
    suv_type: str | None = None
    decay_correction: str = "START"
    philips_factors: tuple[str, ...] = ()
    slope_per_slice: bool = False
    signed: bool = True
    ct_intercept: int = -1024
    transfer_syntax: str = ExplicitVRLittleEndian
    study_key: str = "plain"
    enhanced: tuple[str, ...] = ()
    reshape: Callable[[Study], Study] = unchanged
    edit_pet: Callable[[Dataset], None] = nothing
    edit_ct: Callable[[Dataset], None] = nothing
    change_pet: Callable[[list[Dataset]], list[Dataset]] = unchanged
    change_ct: Callable[[list[Dataset]], list[Dataset]] = unchanged
    path: Callable[[str, int], str] = "{0}/{1:04d}.dcm".format
    beside: tuple[Callable, ...] = ()
    damage: Callable = nothing
    refusal: tuple[str, ...] = ()
    warning: tuple[str, ...] = ()

    def suv_of_unit(self, index: int, slices: int) -> float:
        """Return the SUV of a file's value 1 in its units, for the slice `index` of `slices` from the lowest."""
        person = self.person
        if self.units == "GML":
            return person.weight / lean_body_mass(self.suv_type or "BW", person.sex, person.weight, person.height)
        if self.units == "CM2ML":
            return 1000 * person.weight / body_surface(person.weight, person.height)
        activity = 1.0 if self.units == "BQML" else ACTIVITY_OF_COUNT
        return activity * 1000 * person.weight / (self.tracer.dose * self.dose_left(index, slices))

    def dose_left(self, index: int, slices: int) -> float:
        """Return the part of the injected dose to which a slice's activity refers."""
        if self.decay_correction == "ADMIN":
            return 1.0
        if self.decay_correction == "START":
            return decayed(self.tracer.half_life, self.timing.uptake)
        waited = (self.timing.acquisition(index, slices) - self.timing.injection).total_seconds()
        return decayed(self.tracer.half_life, waited) * mean_of_frame(self.tracer.half_life, self.timing.frame)
