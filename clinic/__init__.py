# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""Studies in and out: batch runs over many of them, and the DICOM ways to fetch them and to give results back."""
