"""An application of MONAI Deploy: a PET/CT study in DICOM goes in, a DICOM SEG and a DICOM SR of its lesions come out.

    python examples/monai_deploy/app.py -i DICOM -o OUT -m WEIGHTS

It needs `pip install monai-deploy-app-sdk==4.0.0` and this repository's package. Research use only.
"""

from __future__ import annotations

import os

from monai.deploy.conditions import CountCondition
from monai.deploy.core import Application

from petct_cascade.deploy_dicom import SEGMENTATION, DICOMResultWriterOperator, DICOMStudySegmentationOperator
from petct_cascade.predict import load_cascade
from petct_training.commands import command


class PETCTLesionApp(Application):
    """Segment one study. PETCT_PROFILE=demo in the environment takes networks of the demo's size."""

    def compose(self) -> None:
        """Join both operators."""
        context = Application.init_app_context(self.argv)
        predictor = load_cascade(context.model_path, os.environ.get("PETCT_PROFILE", "full"))
        segment = DICOMStudySegmentationOperator(
            self, CountCondition(self, 1), predictor=predictor, input_folder=context.input_path, name="segment"
        )
        write = DICOMResultWriterOperator(self, output_folder=context.output_path, name="write")
        self.add_flow(segment, write, {(SEGMENTATION, SEGMENTATION)})


@command
def main() -> None:
    """Run the application; what is wrong with a study ends it with a sentence and exit code 1."""
    PETCTLesionApp().run()


if __name__ == "__main__":
    main()
