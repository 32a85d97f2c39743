# SPDX-License-Identifier: LGPL-2.1-or-later
"""Recipes for backing chains: deep ones, odd names, loops."""
import os

import model
import qcow2
from corpus import K, M


def deep(corpus, stem, depth, base_format, tags):
    """Layers that are shorter and longer than what they cover, each with data of its own."""
    folder = stem + '/'
    base = [('fill', 0, M, 1)]
    disk = model.Disk(2 * M).apply(base)
    name = 'base.' + base_format
    corpus.save(folder + name, bytes(disk.data) if base_format == 'raw' else b'')
    if base_format == 'qcow2':
        corpus.create(folder + name, 2 * M, '', base)
    previous = base_format
    for layer in range(1, depth):
        size = 2 * M + ((layer * 7) % 11 - 5) * 96 * K
        ops = [('write', (layer * 5 % 24) * 64 * K, 64 * K, layer),
               ('write', size - 64 * K + 512, 512, 0x80 | layer)]
        if layer % 6 == 0:
            ops.append(('zero', (layer * 3 % 24) * 64 * K, 64 * K))
        overlay = '%02d.qcow2' % layer
        corpus.create(folder + overlay, size, '', (), ('-u', '-b', name, '-F', previous))
        corpus.write(folder + overlay, ops)
        disk.resize(size).apply(ops)
        name, previous = overlay, 'qcow2'
    corpus.note(folder + name, len(disk.data), '%d layers over a %s base' % (depth, base_format),
                tags, name=stem, sha256=disk.sha256())


def deep_chains(corpus):
    deep(corpus, 'chain-8', 8, 'qcow2', ('quick', 'chain'))
    if not corpus.quick:
        deep(corpus, 'chain-64-raw', 64, 'raw', ('chain', 'deep'))
        deep(corpus, 'chain-64-qcow2', 64, 'qcow2', ('chain', 'deep'))


def named(corpus, file, backing, backing_format, **more):
    """A small overlay whose backing file is named in an unusual way."""
    ops = [('write', 64 * K, 512, 0x11)]
    how = corpus.create(file, M + 512, '', (), ('-u', '-b', backing, '-F', backing_format))
    how += corpus.write(file, ops)
    base = model.Disk(M).apply([('fill', 0, M, 1)])
    corpus.note(file, M + 512, how, ('quick', 'chain', 'names'),
                sha256=model.Disk(M + 512, base.data).apply(ops).sha256(), **more)


def names(corpus):
    """Relative to another folder, absolute, json:, with odd characters, without a format."""
    base = [('fill', 0, M, 1)]
    for file in ('names/base.qcow2', 'names/with space, and comma.qcow2'):
        corpus.create(file, M, '', base)
    corpus.save('names/base.raw', bytes(model.Disk(M).apply(base).data))
    os.makedirs(corpus.path('names/deeper'), exist_ok=True)
    named(corpus, 'names/relative.qcow2', 'base.qcow2', 'qcow2')
    named(corpus, 'names/deeper/parent.qcow2', '../base.raw', 'raw')
    named(corpus, 'names-below.qcow2', 'names/base.qcow2', 'qcow2')
    named(corpus, 'names/absolute.qcow2', corpus.path('names/base.qcow2'), 'qcow2')
    named(corpus, 'names/characters.qcow2', 'with space, and comma.qcow2', 'qcow2')
    named(corpus, 'names/json.qcow2', 'json:{"driver":"qcow2","file":{"driver":"file",'
          '"filename":"names/base.qcow2"}}', 'qcow2')
    named(corpus, 'names/json-raw.qcow2', 'json:{"driver":"raw","size":1048576,"file":'
          '{"driver":"file","filename":"names/base.raw"}}', 'raw')
    named(corpus, 'names/over-raw.qcow2', 'base.raw', 'raw')
    for source, kind in (('relative', 'qcow2'), ('over-raw', 'raw')):
        corpus.patch('names/%s.qcow2' % source, 'names/no-format-%s.qcow2' % kind,
                     'the backing format extension made unknown', forget_format, M + 512,
                     ('quick', 'chain', 'names'))


def forget_format(image):
    return [(image.extension(qcow2.EXT_BACKING_FORMAT), '>I', 0x0badcafe)]


def broken_names(corpus):
    """A missing file, an image that is its own backing file, a ring of two."""
    for file, backing in (('names/missing.qcow2', 'not-there.qcow2'),
                          ('loop-self.qcow2', 'loop-self.qcow2'),
                          ('loop-a.qcow2', 'loop-b.qcow2'), ('loop-b.qcow2', 'loop-a.qcow2')):
        how = corpus.create('.plain.qcow2', M)
        how += '; ' + corpus.img('rebase', '-u', '-b', backing, '-F', 'qcow2', '.plain.qcow2')
        corpus.save(file, corpus.read('.plain.qcow2'))
        missing = 'missing' in file
        corpus.note(file, M, how + '; renamed', ('quick', 'chain', 'damaged'),
                    expect='loop', hint='not-there' if missing else 'loop|itself|ring')


def too_deep(corpus):
    """300 layers, more than the 256 that may be opened."""
    if corpus.quick:
        return
    corpus.create('.layer.qcow2', M, 'cluster_size=512', (),
                  ('-u', '-b', '000.qcow2', '-F', 'qcow2'))
    template = corpus.read('.layer.qcow2')
    corpus.create('too-deep/000.qcow2', M, 'cluster_size=512')
    for layer in range(1, 300):
        corpus.save('too-deep/%03d.qcow2' % layer,
                    template.replace(b'000.qcow2', b'%03d.qcow2' % (layer - 1)))
    corpus.note('too-deep/299.qcow2', M, '300 layers', ('chain', 'deep', 'damaged'),
                name='too-deep', expect='loop', hint='256', qemu='ok')


RECIPES = (deep_chains, names, broken_names, too_deep)
