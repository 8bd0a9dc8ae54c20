"""Reading PET/CT studies as DICOM."""
