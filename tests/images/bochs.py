#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Writes Bochs "growing" images with data, in both header versions.

bximage (Bochs 2.7) makes only the newer header and cannot write data. The
layout is public: Bochs describes it in iodev/hdimage/hdimage.h and in the
"Harddisk images" chapter of its user manual; the newer header was compared
byte for byte with one that `bximage -func=create -hd=10M -imgmode=growing -q`
made. All numbers are little-endian.

  offset  size
       0    32  "Bochs Virtual HD Image"
      32    16  "Redolog"
      48    16  "Growing"
      64     4  version: 0x00010000 or 0x00020000
      68     4  header size: 512
      72     4  entries in the catalog
      76     4  bitmap size in bytes
      80     4  extent size in bytes
  version 1:
      84     8  disk size in bytes
  version 2:
      84     4  time stamp (0 for growing images)
      88     8  disk size in bytes

The catalog follows the header: one 32-bit number per extent of the disk, all
ones when it was never written. Then come the extents in the order of their
numbers: the bitmap, padded to whole sectors of 512 bytes, and the data. Bit n
of the bitmap (least significant first) says whether sector n of the extent is
present; others read zero.
"""
import argparse
import struct

SECTOR = 512
V1 = 0x00010000
V2 = 0x00020000
UNALLOCATED = 0xffffffff

# name: (offset, struct format); the disk size depends on the version
HEADER = {
    'magic': (0, '32s'), 'type': (32, '16s'), 'subtype': (48, '16s'), 'version': (64, '<I'),
    'header_size': (68, '<I'), 'catalog_size': (72, '<I'), 'bitmap_size': (76, '<I'),
    'extent_size': (80, '<I'), 'disk_size_v1': (84, '<Q'), 'disk_size_v2': (88, '<Q'),
}


def sectors(size):
    return (size + SECTOR - 1) // SECTOR


def header(version, catalog, bitmap, extent, disk):
    data = struct.pack('<32s16s16sIIIII', b'Bochs Virtual HD Image', b'Redolog', b'Growing',
                       version, SECTOR, catalog, bitmap, extent)
    data += struct.pack('<Q', disk) if version == V1 else struct.pack('<IQ', 0, disk)
    return data + bytes(SECTOR - len(data))


class Image:
    """An image in memory; extents get numbers in the order of first use."""

    def __init__(self, version, disk, extent, catalog=None, order=()):
        self.version = version
        self.disk = disk
        self.extent = extent
        self.bitmap = max(1, extent // SECTOR // 8)
        self.catalog = [UNALLOCATED] * (catalog or (disk + extent - 1) // extent)
        self.extents = []
        for index in order:
            self.allocate(index)

    def allocate(self, index):
        if self.catalog[index] == UNALLOCATED:
            self.catalog[index] = len(self.extents)
            self.extents.append((bytearray(sectors(self.bitmap) * SECTOR),
                                 bytearray(self.extent)))
        return self.extents[self.catalog[index]]

    def write(self, offset, data):
        """Write whole sectors."""
        assert offset % SECTOR == 0 and len(data) % SECTOR == 0
        assert offset + len(data) <= self.disk
        for position in range(0, len(data), SECTOR):
            index, inside = divmod(offset + position, self.extent)
            bitmap, content = self.allocate(index)
            bitmap[inside // SECTOR // 8] |= 1 << (inside // SECTOR % 8)
            content[inside:inside + SECTOR] = data[position:position + SECTOR]

    def content(self):
        """What the disk reads as."""
        disk = bytearray(self.disk)
        for index, number in enumerate(self.catalog):
            if number != UNALLOCATED:
                part = self.extents[number][1][:max(0, self.disk - index * self.extent)]
                disk[index * self.extent:index * self.extent + len(part)] = part
        return bytes(disk)

    def file(self):
        data = header(self.version, len(self.catalog), self.bitmap, self.extent, self.disk)
        data += struct.pack('<%dI' % len(self.catalog), *self.catalog)
        return data + b''.join(bytes(bitmap) + bytes(content)
                               for bitmap, content in self.extents)


def sample(version, disk=256 * 1024, extent=16384):
    """Scattered sectors, whole extents, and extents whose order on disk is not the disk's."""
    image = Image(version, disk, extent, order=(3, 0))
    image.write(0, b'\x11' * SECTOR)
    image.write(3 * extent, b'\x22' * extent)
    for number in (1, 5, 8, 30):
        image.write(extent + number * SECTOR, bytes([number]) * SECTOR)
    image.write(6 * extent - SECTOR, b'\x33' * (2 * SECTOR))
    image.write(disk - SECTOR, b'\x44' * SECTOR)
    return image


def main():
    parser = argparse.ArgumentParser(description='Write a Bochs growing image with sample data.')
    parser.add_argument('--version', type=int, choices=(1, 2), default=2)
    parser.add_argument('--disk', type=int, default=256 * 1024, help='disk size in bytes')
    parser.add_argument('--extent', type=int, default=16384, help='extent size in bytes')
    parser.add_argument('--raw', help='also write what the disk reads as')
    parser.add_argument('output')
    args = parser.parse_args()
    image = sample(V1 if args.version == 1 else V2, args.disk, args.extent)
    with open(args.output, 'wb') as file:
        file.write(image.file())
    if args.raw:
        with open(args.raw, 'wb') as file:
            file.write(image.content())


if __name__ == '__main__':
    main()
