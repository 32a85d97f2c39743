# SPDX-License-Identifier: LGPL-2.1-or-later
"""What runs of two programs in two folders have come to, compared.

Output with times, sizes on disk and dates masked; files by their bytes, images of qcow2 by
what they say of themselves and what they hold.
"""
import fcntl
import hashlib
import json
import os
import re
import struct

import harness
import io_testing

MASKS = (
    (r'Run completed in [\d.]+ seconds', 'Run completed in T seconds'),
    (r'"actual-size": \d+', '"actual-size": 0'),
    (r'disk size: .*', 'disk size: N'),
    # A snapshot's date.
    (r'\d{4}-\d\d-\d\d \d\d:\d\d:\d\d', 'DATE'),
    (r'"date-n?sec": \d+', '"date": 0'),
    # How often it is drawn is a matter of how the work is cut.
    (r'(    \([\d.]+/100%\)\r)+\n?', 'PROGRESS\\n'),
    # Of a trace: process, time, addresses.
    (r'^\d+@[\d.]+:', ''),
    (r'0x[0-9a-f]{6,}', 'ADDRESS'),
)
LOCK_BYTES = (101, 201)
F_OFD_SETLK = 37
BLOCK = 65536


def mask(text):
    for pattern, by in MASKS:
        text = re.sub(pattern, by, text, flags=re.MULTILINE)
    return io_testing.mask(text)


def blocks(fd, length):
    """(offset, data) of each block of a file that is not all zeros."""
    offset = 0
    while offset < length:
        try:
            offset = os.lseek(fd, offset, os.SEEK_DATA)
        except OSError:
            return
        offset -= offset % BLOCK
        data = os.pread(fd, BLOCK, offset)
        if data.count(0) < len(data):
            yield offset, data
        offset += BLOCK


def digest(path):
    """Of a file's length and all blocks that are not zeros, with their places."""
    found = hashlib.sha256()
    with open(path, 'rb', buffering=0) as file:
        length = file.seek(0, os.SEEK_END)
        found.update(b'%d' % length)
        for offset, data in blocks(file.fileno(), length):
            found.update(b'%d:' % offset + data)
    return found.hexdigest()


def copy(source, target):
    """A file with its holes."""
    with open(source, 'rb', buffering=0) as file, open(target, 'wb', buffering=0) as out:
        length = file.seek(0, os.SEEK_END)
        for offset, data in blocks(file.fileno(), length):
            os.pwrite(out.fileno(), data, offset)
        out.truncate(length)


class Lock:
    """What another writer's locks look like."""

    def __init__(self, path):
        self.file = open(path, 'r+b') if path else None
        for byte in LOCK_BYTES if path else ():
            fcntl.fcntl(self.file, F_OFD_SETLK,
                        struct.pack('hhqqi4x', fcntl.F_RDLCK, os.SEEK_SET, byte, 1, 0))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.file:
            self.file.close()


class FolderTest(harness.ToolTest):
    """Compares folders that programs have worked in."""

    def files(self, folder):
        """{name: digest}"""
        return {name: digest(os.path.join(folder, name)) for name in sorted(os.listdir(folder))
                if os.path.isfile(os.path.join(folder, name))}

    def properties(self, name, folder):
        """What info tells of an image, without what it tells of its file."""
        told = self.img('info', '--output=json', '-f', 'qcow2', name, cwd=folder).out
        return {key: value for key, value in json.loads(mask(told)).items() if key != 'children'}

    def content(self, name, folder):
        """A digest of what an image holds; from its folder, where its other files are."""
        raw = os.path.join(folder, '.raw')
        result = self.img('convert', '-f', 'qcow2', '-O', 'raw', name, raw, cwd=folder)
        self.assertEqual(result.status, 0, '%s: %r' % (name, result))
        return digest(raw)

    def check_files(self, mine, theirs):
        """The same files; images of qcow2 have the same properties and hold the same."""
        one, other = self.files(mine), self.files(theirs)
        if one.keys() != other.keys():
            return 'files %r, %r' % (sorted(one), sorted(other))
        for name in (name for name in one if one[name] != other[name]):
            if not name.endswith('.qcow2'):
                return '%s differs' % name
            infos = [self.properties(name, folder) for folder in (mine, theirs)]
            if infos[0] != infos[1]:
                return '%s: %s\nreference: %s' % (name, *infos)
            if self.content(name, mine) != self.content(name, theirs):
                return '%s holds something else' % name
        return None
