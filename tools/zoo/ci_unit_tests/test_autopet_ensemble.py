# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#     http://www.apache.org/licenses/LICENSE-2.0
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.

import json
import os
import shutil
import sys
import tempfile
import unittest

import nibabel as nib
import numpy as np
import torch
from monai.bundle import ConfigParser, ConfigWorkflow
from parameterized import parameterized

BUNDLE_ROOT = "models/autopet_ensemble"
# The network is a class of the bundle's own.
sys.path.insert(0, os.path.abspath(BUNDLE_ROOT))

TEST_CASE_1 = [{"bundle_root": BUNDLE_ROOT, "num_workers": 0}]  # inference

TEST_CASE_2 = [{"bundle_root": BUNDLE_ROOT, "num_workers": 0}]  # evaluate

SHAPE = (40, 30, 48)
CASES = ("fdg_0", "fdg_1")
FINGERPRINT = {
    "spacing": [5, 5, 5],
    "ct": {"percentile_00_5": -100, "percentile_99_5": 150, "mean": 50, "std": 40},
    "pet": {"percentile_00_5": 1, "percentile_99_5": 12, "mean": 6, "std": 3},
    "num_cases": 2,
    "source": "cubes in noise",
}


def save_nifti(array, path):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    image = nib.Nifti1Image(array, np.diag([-5.0, 5.0, 5.0, 1.0]))
    image.header.set_xyzt_units("mm")
    nib.save(image, path)


def save_json(content, path):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w") as file:
        json.dump(content, file)


class TestAutoPETEnsemble(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.mkdtemp()
        self.studies = os.path.join(self.folder, "studies")
        self.ckpt_dir = os.path.join(self.folder, "models")
        self.output_dir = os.path.join(self.folder, "output")
        self.produce_fake_studies()
        self.produce_fake_weights()

    def produce_fake_studies(self):
        rng = np.random.default_rng(0)
        body = np.zeros(SHAPE, bool)
        body[4:-4, 4:-4, 2:-2] = True
        for case in CASES:
            label = np.zeros(SHAPE, np.uint8)
            label[15:25, 10:20, 20:30] = 1
            ct = np.where(body, rng.normal(40, 20, SHAPE), -1000)
            ct[SHAPE[0] // 2, SHAPE[1] // 2, 2:-2] = 700
            pet = np.where(body, rng.uniform(0.5, 1.5, SHAPE), 0.05) + 8 * label
            save_nifti(ct.astype(np.int16), os.path.join(self.studies, f"imagesTr/{case}_0000.nii.gz"))
            save_nifti(pet.astype(np.float32), os.path.join(self.studies, f"imagesTr/{case}_0001.nii.gz"))
            save_nifti(label, os.path.join(self.studies, f"labelsTr/{case}.nii.gz"))

    def produce_fake_weights(self):
        parser = ConfigParser()
        parser.read_config(os.path.join(BUNDLE_ROOT, "configs/inference.json"))
        save_json(FINGERPRINT, os.path.join(self.ckpt_dir, "fingerprint.json"))
        network = parser.get_parsed_content("network_def")
        torch.save(network.state_dict(), os.path.join(self.ckpt_dir, "model.pt"))

    def tearDown(self):
        shutil.rmtree(self.folder)

    def run_workflow(self, configs, override, check_properties=False):
        bundle_root = override["bundle_root"]
        workflow = ConfigWorkflow(
            workflow_type="infer",
            config_file=[os.path.join(bundle_root, f"configs/{name}.json") for name in configs],
            logging_file=os.path.join(bundle_root, "configs/logging.conf"),
            meta_file=os.path.join(bundle_root, "configs/metadata.json"),
            ckpt_dir=self.ckpt_dir,
            output_dir=self.output_dir,
            **override,
        )
        workflow.initialize()
        if check_properties:
            check_result = workflow.check_properties()
            if check_result is not None and len(check_result) > 0:
                raise ValueError(f"check properties for {configs} failed: {check_result}")
        workflow.run()
        workflow.finalize()

    @parameterized.expand([TEST_CASE_1])
    def test_infer_config(self, override):
        override["studies"] = self.studies
        self.run_workflow(["inference"], override, check_properties=True)
        for case in CASES:
            mask = nib.load(os.path.join(self.output_dir, f"{case}.nii.gz"))
            self.assertEqual(mask.shape, SHAPE)

    @parameterized.expand([TEST_CASE_2])
    def test_eval_config(self, override):
        # evaluate.json patches inference.json, and scores the validation studies of a prepared data set.
        items = []
        for case in CASES:
            ct, pet = (f"imagesTr/{case}_000{channel}.nii.gz" for channel in range(2))
            original = {"ct": ct, "pet": pet, "label": f"labelsTr/{case}.nii.gz"}
            files = {"image": f"images/{case}.nii", "label": f"labels/{case}.nii"}
            items.append({"case": case, "patient": case, "tracer": "fdg", **files, "original": original})
        override["dataset_dir"] = os.path.join(self.folder, "prepared")
        datalist = {"studies_dir": "../studies", "training": [], "validation": items, "excluded": []}
        save_json(datalist, os.path.join(override["dataset_dir"], "datalist.json"))
        save_json(FINGERPRINT, os.path.join(override["dataset_dir"], "fingerprint.json"))
        self.run_workflow(["inference", "evaluate"], override)
        self.assertTrue(os.path.isfile(os.path.join(self.output_dir, "table1.md")))


if __name__ == "__main__":
    unittest.main()
