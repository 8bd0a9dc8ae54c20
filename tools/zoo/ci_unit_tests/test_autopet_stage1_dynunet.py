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
import tempfile
import unittest

import nibabel as nib
import numpy as np
import torch
from monai.bundle import ConfigParser, ConfigWorkflow
from parameterized import parameterized

BUNDLE_ROOT = "models/autopet_stage1_dynunet"

TEST_CASE_1 = [{"bundle_root": BUNDLE_ROOT, "max_epochs": 1, "val_interval": 1, "num_workers": 0}]  # train, evaluate

TEST_CASE_2 = [{"bundle_root": BUNDLE_ROOT, "num_workers": 0}]  # inference

FINGERPRINT = {
    "spacing": [5, 5, 5],
    "ct": {"percentile_00_5": -100, "percentile_99_5": 150, "mean": 50, "std": 40},
    "pet": {"percentile_00_5": 1, "percentile_99_5": 12, "mean": 6, "std": 3},
    "num_cases": 2,
    "source": "cubes in noise",
}


def save_nifti(array, path):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    nib.save(nib.Nifti1Image(array, np.diag([-5.0, 5.0, 5.0, 1.0])), path)


def save_json(content, path):
    with open(path, "w") as file:
        json.dump(content, file)


class TestAutoPETNetwork(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.mkdtemp()
        self.dataset_dir = os.path.join(self.folder, "prepared")
        self.ckpt_dir = os.path.join(self.folder, "models")
        os.makedirs(self.ckpt_dir)
        self.produce_fake_dataset()

    def produce_fake_dataset(self):
        rng = np.random.default_rng(0)
        shape = (40, 30, 48)
        items = []
        for case in ("case0", "case1", "case2"):
            image = np.stack([rng.normal(40, 20, shape), rng.normal(1, 0.2, shape)], -1).astype(np.float32)
            label = np.zeros(shape, np.uint8)
            label[15:25, 10:20, 20:30] = 1
            image[..., 1] += 8 * label
            files = {"image": f"images/{case}.nii", "label": f"labels/{case}.nii"}
            save_nifti(image, os.path.join(self.dataset_dir, files["image"]))
            save_nifti(label, os.path.join(self.dataset_dir, files["label"]))
            save_nifti(label, os.path.join(self.dataset_dir, f"coarse_masks/{case}.nii.gz"))
            original = {"ct": files["image"], "pet": files["image"], "label": files["label"]}
            items.append({"case": case, "patient": case, "tracer": "fdg", **files, "original": original})
        datalist = {"studies_dir": ".", "training": items[:2], "validation": items[2:], "excluded": []}
        save_json(datalist, os.path.join(self.dataset_dir, "datalist.json"))
        save_json(FINGERPRINT, os.path.join(self.dataset_dir, "fingerprint.json"))

    def tearDown(self):
        shutil.rmtree(self.folder)

    def run_workflow(self, workflow_type, configs, override):
        bundle_root = override["bundle_root"]
        workflow = ConfigWorkflow(
            workflow_type=workflow_type,
            config_file=[os.path.join(bundle_root, f"configs/{name}.json") for name in configs],
            logging_file=os.path.join(bundle_root, "configs/logging.conf"),
            meta_file=os.path.join(bundle_root, "configs/metadata.json"),
            dataset_dir=self.dataset_dir,
            ckpt_dir=self.ckpt_dir,
            **override,
        )
        workflow.initialize()
        check_result = workflow.check_properties()
        if check_result is not None and len(check_result) > 0:
            raise ValueError(f"check properties for {configs} failed: {check_result}")
        workflow.run()
        workflow.finalize()

    @parameterized.expand([TEST_CASE_1])
    def test_train_eval_config(self, override):
        override["output_dir"] = os.path.join(self.folder, "output")
        self.run_workflow("train", ["train"], override)
        self.assertTrue(os.path.isfile(os.path.join(self.ckpt_dir, "model.pt")))
        self.run_workflow("train", ["train", "evaluate"], override)
        self.assertTrue(os.path.isfile(os.path.join(self.folder, "output/val_mean_dice_raw.csv")))

    @parameterized.expand([TEST_CASE_2])
    def test_infer_config(self, override):
        override["output_dir"] = os.path.join(self.folder, "masks")
        parser = ConfigParser()
        parser.read_config(os.path.join(override["bundle_root"], "configs/inference.json"))
        network = parser.get_parsed_content("network_def")
        torch.save(network.state_dict(), os.path.join(self.ckpt_dir, "model.pt"))
        save_json(FINGERPRINT, os.path.join(self.ckpt_dir, "fingerprint.json"))
        self.run_workflow("infer", ["inference"], override)
        masks = sorted(name for name in os.listdir(override["output_dir"]) if name.endswith(".nii.gz"))
        self.assertEqual(masks, ["case0.nii.gz", "case1.nii.gz", "case2.nii.gz"])
        for name in masks:
            mask = nib.load(os.path.join(override["output_dir"], name))
            self.assertEqual(mask.shape, (40, 30, 48))


if __name__ == "__main__":
    unittest.main()
