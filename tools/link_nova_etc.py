"""Link etc/nova where Nova's tests look for it: beside the package. Nova's wheel installs it below the prefix."""

import pathlib
import sys
import sysconfig

link = pathlib.Path(sysconfig.get_path("purelib"), "etc", "nova")
link.parent.mkdir(exist_ok=True)
link.unlink(missing_ok=True)
link.symlink_to(pathlib.Path(sys.prefix, "etc", "nova"))
