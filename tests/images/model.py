# SPDX-License-Identifier: LGPL-2.1-or-later
"""A flat model of a guest disk: the same writes go to an image and to memory.

An operation is a tuple. Offsets and lengths are bytes:

  ('write', offset, length, byte)   the byte, everywhere
  ('fill', offset, length, seed)    bytes that differ everywhere and do not compress
  ('text', offset, length, seed)    bytes that differ and compress
  ('pack', offset, length, seed)    like text, written as compressed clusters
  ('zero', offset, length)          zeroes, keeping the place
  ('unmap', offset, length)         zeroes, giving the place back
  ('discard', offset, length)       whole clusters; reads zero in version 3
"""
import hashlib
import os
import random

import qemu


def fill_bytes(length, seed):
    return random.Random(seed).randbytes(length)


def text_bytes(length, seed):
    """Lines of a few words: compressible, but with long and short matches."""
    rng = random.Random(seed)
    words = ['%x' % rng.getrandbits(rng.choice((8, 16, 48))) for _ in range(64)]
    parts, size = [], 0
    while size < length:
        line = ' '.join(rng.choice(words) for _ in range(rng.randint(1, 12))) + '\n'
        parts.append(line)
        size += len(line)
    return ''.join(parts).encode()[:length]


def payload(op):
    kind, length = op[0], op[2]
    if kind == 'write':
        return bytes([op[3]]) * length
    if kind == 'fill':
        return fill_bytes(length, op[3])
    if kind in ('text', 'pack'):
        return text_bytes(length, op[3])
    return bytes(length)


class Disk:
    """The bytes that a guest is to see."""

    def __init__(self, size, base=b''):
        size = (size + 511) // 512 * 512
        self.data = bytearray(base[:size])
        self.data.extend(bytes(size - len(self.data)))

    def apply(self, ops):
        for op in ops:
            assert op[1] + op[2] <= len(self.data), op
            self.data[op[1]:op[1] + op[2]] = payload(op)
        return self

    def resize(self, size):
        old = bytes(self.data)
        self.__init__(size, old)
        return self

    def sha256(self):
        return hashlib.sha256(self.data).hexdigest()


def command(op, source):
    """The qemu-io command of an operation; `source` is a file for its bytes.

    qemu-io runs in the folder of that file and knows no quoting.
    """
    kind, offset, length = op[:3]
    if kind == 'write':
        return 'write -P %d %d %d' % (op[3], offset, length)
    if kind in ('fill', 'text', 'pack'):
        with open(source, 'wb') as file:
            file.write(payload(op))
        flag = '-c ' if kind == 'pack' else ''
        return 'write %s-s %s %d %d' % (flag, os.path.basename(source), offset, length)
    return {'zero': 'write -z %d %d', 'unmap': 'write -z -u %d %d',
            'discard': 'discard %d %d'}[kind] % (offset, length)


def write(folder, name, ops, image_format='qcow2', crash=False):
    """Perform the operations on an image with qemu-io, in one process."""
    sources = [os.path.join(folder, '.source-%d' % number) for number in range(len(ops))]
    try:
        commands = [command(op, source) for op, source in zip(ops, sources)]
        qemu.io(folder, name, commands, image_format, crash)
    finally:
        for source in sources:
            if os.path.exists(source):
                os.unlink(source)
