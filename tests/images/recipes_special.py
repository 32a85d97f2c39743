# SPDX-License-Identifier: LGPL-2.1-or-later
"""Recipes for qcow2 images that are encrypted, carry features nobody knows, or fail `check`."""
import model
import qcow2
import qemu
from corpus import K, M

OPS = [('fill', 0, 512 * K, 1), ('write', M, 64 * K, 0x11)]


def create_encrypted(corpus, file, options):
    """QEMU times its key derivation, and gives up when the clock of its CPU time jumps, as it
    does on a busy machine; the next attempt need not meet that."""
    secret = ('--object', 'secret,id=key,data=blockgraph')
    for attempt in range(20):
        try:
            return corpus.create(file, M, options, (), secret)
        except qemu.QemuError as error:
            if 'Unable to get accurate CPU usage' not in str(error) or attempt == 19:
                raise
    raise AssertionError('not reached')


def encrypted(corpus):
    for kind, more in (('luks', ',encrypt.iter-time=10'), ('aes', '')):
        file = 'encrypted-%s.qcow2' % kind
        how = create_encrypted(corpus, file,
                               'encrypt.format=%s,encrypt.key-secret=key%s' % (kind, more))
        corpus.note(file, M, how, ('quick', 'encrypted'), expect='info',
                    hint='(?i)encrypt.*%s|%s.*encrypt|encrypt.key-secret' % (kind, kind))


def features(corpus):
    """Extensions and feature bits that nobody knows, and one that is known by name only."""
    source = 'features-base.qcow2'
    corpus.plain(source, 2 * M, '', OPS, ('quick', 'features'))
    content = model.Disk(2 * M).apply(OPS).sha256()
    sound = {
        'features-extension': ('an unknown extension', lambda image: [
            qcow2.with_extension(image, 0x0badcafe, b'nobody knows this')]),
        'features-empty-extension': ('an unknown extension without data', lambda image: [
            qcow2.with_extension(image, 0x0badcafe, b'')]),
        'features-compatible': ('an unknown compatible feature', lambda image: [
            qcow2.set_features(image, 'compatible_features', 1 << 63)]),
        'features-autoclear': ('an unknown autoclear feature', lambda image: [
            qcow2.set_features(image, 'autoclear_features', 1 << 62)]),
        'features-corrupt': ('the corrupt bit', lambda image: [
            qcow2.set_features(image, 'incompatible_features', 2)]),
        'features-no-names': ('no feature names', lambda image: [
            (image.extension(qcow2.EXT_FEATURE_NAMES), '>I', 0x0badcafe)]),
    }
    for name, (what, patches) in sound.items():
        corpus.patch(source, name + '.qcow2', what, patches, 2 * M, ('quick', 'features'),
                     sha256=content)
    corpus.patch(source, 'features-incompatible.qcow2', 'an unknown incompatible feature',
                 lambda image: [qcow2.set_features(image, 'incompatible_features', 1 << 40)],
                 None, ('quick', 'features', 'damaged'), expect='refuse',
                 hint='(?i)feature.*10000000000')
    corpus.patch(source, 'features-named.qcow2', 'an incompatible feature known by name',
                 lambda image: [(image.extension(qcow2.EXT_FEATURE_NAMES) + 8, None,
                                 qcow2.feature_name(0, 40, 'time travel')),
                                qcow2.set_features(image, 'incompatible_features', 1 << 40)],
                 None, ('quick', 'features', 'damaged'), expect='refuse', hint='time travel')


def refcount(image, guest, value):
    return image.refcount(image.host(guest)), image.refcount_format(), value


# name: (exit code of check, expect, what, patches[, what QEMU 10.0 does instead])
CHECKS = {
    'leak': (3, 'check', 'an L2 entry cleared', lambda image: [
        (image.l2(3 * 64 * K), '>Q', 0)]),
    'leak-many': (3, 'check', 'three L2 entries cleared', lambda image: [
        (image.l2(n * 64 * K), '>Q', 0) for n in (1, 3, 4)]),
    'refcount-high': (2, 'check', 'a refcount of 5', lambda image: [refcount(image, 0, 5)]),
    'refcount-zero': (2, 'check', 'a refcount of 0', lambda image: [refcount(image, 0, 0)]),
    'refcount-header': (2, 'check', "the header's refcount 0", lambda image: [
        (image.refcount(0), '>H', 0)]),
    'double-use': (2, 'check', 'two L2 entries for one cluster', lambda image: [
        (image.l2(3 * 64 * K), '>Q', image.get(image.l2(0)))]),
    'double-use-counted': (2, 'check', 'two L2 entries for one cluster, counted', lambda image: [
        (image.l2(3 * 64 * K), '>Q', image.get(image.l2(0))), refcount(image, 0, 2),
        refcount(image, 3 * 64 * K, 0)]),
    'metadata-use': (2, 'check', 'an L2 entry that points to the L1 table', lambda image: [
        (image.l2(3 * 64 * K), '>Q', image.header('l1_table_offset') | qcow2.COPIED)]),
    'not-copied': (2, 'check', 'an L2 entry without the copied flag', lambda image: [
        (image.l2(3 * 64 * K), '>Q', image.host(3 * 64 * K))]),
    'beyond-end': (2, 'eio', 'an L2 entry beyond the end of the file', lambda image: [
        (image.l2(3 * 64 * K), '>Q', 1 << 40 | qcow2.COPIED)], 'check'),
    'unaligned-l2-entry': (2, 'eio', 'an L2 entry that is not aligned', lambda image: [
        (image.l2(3 * 64 * K), '>Q', image.get(image.l2(3 * 64 * K)) + 512)]),
    'reserved-bits': (2, 'check', 'an L2 entry with a reserved bit', lambda image: [
        (image.l2(3 * 64 * K), '>Q', image.get(image.l2(3 * 64 * K)) | 2)]),
    'unaligned-l1-entry': (2, 'eio', 'an L1 entry that is not aligned', lambda image: [
        (image.l1(), '>Q', image.get(image.l1()) + 512)]),
    'refcount-table-cleared': (2, 'check', 'no refcount block', lambda image: [
        (image.refcount_table(), '>Q', 0)]),
    'refcount-block-beyond-end': (2, 'check', 'a refcount block beyond the end', lambda image: [
        (image.refcount_table(), '>Q', 1 << 40)]),
    'refcount-block-unaligned': (1, 'check', 'a refcount block that is not aligned', lambda image: [
        (image.refcount_table(), '>Q', image.get(image.refcount_table()) + 512)]),
}


def checks(corpus):
    """What `check` is to find."""
    corpus.plain('check-base.qcow2', 2 * M, '', OPS, ('quick',))
    for name, (status, expect, what, patches, *qemu) in CHECKS.items():
        corpus.patch('check-base.qcow2', 'check-%s.qcow2' % name, what, patches, 2 * M,
                     ('quick', 'damaged', 'check'), expect=expect, check_status=status,
                     qemu=qemu[0] if qemu else None)


def check_snapshot(corpus):
    """A cluster that a snapshot and the disk share, with a refcount for one of them."""
    corpus.create('.shared.qcow2', M, '', [('fill', 0, 128 * K, 1)])
    corpus.img('snapshot', '-c', 'one', '.shared.qcow2')
    corpus.patch('.shared.qcow2', 'check-snapshot-refcount.qcow2', 'a refcount too low',
                 lambda image: [refcount(image, 0, 1)], M,
                 ('quick', 'damaged', 'check', 'snapshot'), expect='check', check_status=2)


RECIPES = (encrypted, features, checks, check_snapshot)
