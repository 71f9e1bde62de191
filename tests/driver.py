"""Run the sample with different values for its constants so that tests don't have to wait.

python driver.py '{"TIMEOUT": [1, 1]}' parameters.json
"""

import json
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
import username_password_sample as sample  # noqa: E402

for name, value in json.loads(sys.argv.pop(1)).items():
    getattr(sample, name)  # If the constant doesn't exist, the test has a mistake.
    setattr(sample, name, tuple(value) if isinstance(value, list) else value)
try:
    sample.main()
except KeyboardInterrupt:
    sys.exit(130)
