# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the recipes of the image corpus share: making images and noting them.

corpus.json, beside the images, is what tests read. One entry per image:

  name          unique
  file          relative to the corpus folder, as is every name inside an image;
                tools are to run in that folder
  format        raw, bochs or qcow2
  opts          null, or what to give with --image-opts in place of the file
  virtual_size  in bytes, as QEMU sees it (whole sectors); null if it does not open
  sha256        of all that a guest reads, from a flat model; null if unknown
  snapshots     {name: sha256 of the content}
  how           how it was made
  tags          for choosing: quick, damaged, chain, compressed, huge, ...
  expect        ok       opens, reads, and `check` is clean (or not supported)
                check    opens and reads; `check` ends with check_status
                eio      opens, but a read of the whole disk fails
                bounded  may fail to open or to read, but never crashes, hangs or takes much
                refuse   does not open
                loop     opens alone, but its backing chain is an error
                info     `info` works; what needs the content is refused
  check_status  exit code of `check`, or null
  hint          regular expression for the error message (any case), or null
  qemu          what to expect of QEMU 10.0 where that is something else, or null
"""
import os

import model
import qcow2
import qemu

K = 1024
M = 1024 * K
G = 1024 * M
T = 1024 * G


def sectors(size):
    return (size + 511) // 512 * 512


class Corpus:
    """Makes images in a folder. A recipe without the quick tag is left out of a quick corpus."""

    def __init__(self, folder, quick):
        self.folder = folder
        self.quick = quick
        self.images = []

    def path(self, name):
        return os.path.join(self.folder, name)

    def read(self, name):
        with open(self.path(name), 'rb') as file:
            return file.read()

    def save(self, name, data):
        os.makedirs(os.path.dirname(self.path(name)), exist_ok=True)
        with open(self.path(name), 'wb') as file:
            file.write(data)

    def wants(self, tags):
        return not self.quick or 'quick' in tags

    def note(self, file, size, how, tags=(), **more):
        """Add an image to the manifest; see above for what `more` may hold."""
        entry = {
            'name': more.pop('name', os.path.splitext(file)[0].replace('/', '-')), 'file': file,
            'format': more.pop('format', 'qcow2'), 'opts': None,
            'virtual_size': None if size is None else sectors(size), 'sha256': None,
            'snapshots': {}, 'how': how, 'tags': sorted(tags), 'expect': 'ok',
            'check_status': None, 'hint': None, 'qemu': None,
        }
        assert not set(more) - set(entry), more
        assert entry['name'] not in [image['name'] for image in self.images], entry['name']
        entry.update(more)
        self.images.append(entry)

    def img(self, *args):
        qemu.img(self.folder, *args)
        return 'qemu-img ' + ' '.join(map(str, args))

    def create(self, file, size, options='', ops=(), extra=()):
        """Create a qcow2 image and write to it; returns how."""
        os.makedirs(os.path.dirname(self.path(file)), exist_ok=True)
        choice = ['-o', options] if options else []
        how = self.img('create', '-q', '-f', 'qcow2', *choice, *extra, file, size)
        return how + self.write(file, ops)

    def write(self, file, ops, **more):
        if not ops:
            return ''
        model.write(self.folder, file, ops, **more)
        return '; qemu-io: ' + ', '.join(' '.join(map(str, op)) for op in ops)

    def plain(self, file, size, options='', ops=(), tags=(), **more):
        """The common case: created, written, noted with its content."""
        if self.wants(tags):
            how = self.create(file, size, options, ops)
            self.note(file, size, how, tags, sha256=model.Disk(size).apply(ops).sha256(), **more)

    def patch(self, source, file, what, make_patches, size=None, tags=(), **more):
        """A patched copy of an image: make_patches(Image) gives the patches."""
        if self.wants(tags):
            image = qcow2.Image(self.read(source))
            patches = make_patches(image)
            self.save(file, qcow2.patched(image.data, patches))
            places = ', '.join('0x%x' % place for place, _, _ in patches)
            self.note(file, size, '%s with %s (patched at %s)' % (source, what, places), tags,
                      **more)
