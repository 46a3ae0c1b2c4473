"""Set before triton is imported: kernels run in its interpreter here, and are compiled in a process of their own."""

import os

os.environ["TRITON_INTERPRET"] = "1"
