# SPDX-License-Identifier: LGPL-2.1-or-later
"""Runs qemu-img and qemu-io for the image generators.

The tools are the ones named by BLOCKGRAPH_TEST_QEMU_IMG and
BLOCKGRAPH_TEST_QEMU_IO, else those in PATH.
"""
import os
import re
import shutil
import subprocess


class QemuError(Exception):
    """A tool ended with a status that was not expected."""


def qemu_img():
    return os.environ.get('BLOCKGRAPH_TEST_QEMU_IMG') or shutil.which('qemu-img')


def qemu_io():
    return os.environ.get('BLOCKGRAPH_TEST_QEMU_IO') or shutil.which('qemu-io')


def available():
    return qemu_img() is not None and qemu_io() is not None


def version():
    """The version as text, `10.0.2`."""
    text = subprocess.run([qemu_img(), '--version'], check=True, capture_output=True,
                          text=True).stdout
    return re.search(r'version (\d+(?:\.\d+)+)', text).group(1)


def run(args, cwd, status=0):
    result = subprocess.run(args, cwd=cwd, stdin=subprocess.DEVNULL, capture_output=True,
                            text=True, check=False)
    if result.returncode != status:
        raise QemuError('%s: status %d, expected %d: %s%s' % (
            ' '.join(args), result.returncode, status, result.stdout, result.stderr))
    return result.stdout


def img(cwd, *args):
    return run([qemu_img(), *map(str, args)], cwd)


def io(cwd, name, commands, image_format='qcow2', crash=False):
    """Run qemu-io commands on an image; with `crash` the process then aborts.

    qemu-io reports a failed command on standard output and goes on, so the
    output is searched for it.
    """
    args = [qemu_io(), '-f', image_format]
    for command in commands:
        args += ['-c', command]
    if crash:
        # A shell wrapper around qemu-io may turn the signal into 128 + number.
        result = subprocess.run([*args, '-c', 'abort', name], cwd=cwd, capture_output=True,
                                text=True, check=False, stdin=subprocess.DEVNULL)
        if result.returncode not in (-6, 134):
            raise QemuError('qemu-io did not abort: %s' % result.stderr)
        return
    output = run([*args, name], cwd)
    if re.search(r'failed|[Ii]nvalid|rror', output):
        raise QemuError('%s: %s' % (' '.join(args), output))
