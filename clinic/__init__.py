# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""Studies in, answers out: batch runs, DICOMweb, and results as DICOM."""
