#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""The reference's kept answers: each is of this program, environment and corpus alone."""
import os
import tempfile
import threading
import unittest

import answers
import harness

QUESTION = ['info', 'a.qcow2']


class AnswersTest(unittest.TestCase):

    def setUp(self):
        scratch = tempfile.TemporaryDirectory(prefix='blockgraph-test-')
        self.addCleanup(scratch.cleanup)
        self.corpus = os.path.join(scratch.name, 'corpus')
        self.program = os.path.join(scratch.name, 'qemu-img')
        os.makedirs(os.path.join(self.corpus, 'sub'))
        self.write('corpus/corpus.json', '{"qemu": "10.0"}')
        self.write('corpus/sub/a.qcow2', 'image')
        self.write('qemu-img', 'program')

    def write(self, name, text):
        with open(os.path.join(os.path.dirname(self.corpus), name), 'w', encoding='ascii') as file:
            file.write(text)

    def asks(self, question=None, answer='new'):
        """Whether a fresh program that wants the answer has to ask for it."""
        asked = []

        def ask():
            asked.append(answer)
            return [0, answer, '\udcff']
        found = answers.Answers(self.corpus, self.program).remembered(question or QUESTION, ask)
        self.assertEqual(found[2], '\udcff')
        return bool(asked)

    def test_it_is_asked_once(self):
        self.assertTrue(self.asks())
        self.assertFalse(self.asks())
        self.assertTrue(self.asks(['info', 'b.qcow2']))

    def test_the_first_answer_is_given_again(self):
        for _ in range(2):
            found = answers.Answers(self.corpus, self.program).remembered(
                QUESTION, lambda: [1, 'first', 'text'])
            self.assertEqual(found, [1, 'first', 'text'])
        again = answers.Answers(self.corpus, self.program).remembered(QUESTION, self.fail)
        self.assertEqual(again, [1, 'first', 'text'])

    def test_anything_else_has_answers_of_its_own(self):
        def touch():
            os.utime(os.path.join(self.corpus, 'sub', 'a.qcow2'), (1, 1))

        def move():
            os.rename(self.program, self.program + '2')
            self.program += '2'
        changes = (lambda: self.write('corpus/sub/a.qcow2', 'other image'), touch,
                   lambda: self.write('corpus/b.qcow2', ''),
                   lambda: os.chmod(os.path.join(self.corpus, 'b.qcow2'), 0o400),
                   lambda: self.write('qemu-img', 'another program'), move,
                   lambda: self.write('corpus/corpus.json', '{"qemu": "10.1"}'))
        for number, change in enumerate(changes):
            self.asks()
            self.assertFalse(self.asks())
            change()
            self.assertTrue(self.asks(), number)

    def test_where_words_differ_so_do_answers(self):
        before = os.environ.get('TZ')
        self.asks()
        os.environ['TZ'] = 'Asia/Kathmandu'
        try:
            self.assertTrue(self.asks())
        finally:
            del os.environ['TZ']
            if before is not None:
                os.environ['TZ'] = before

    def test_an_answer_that_is_not_whole_is_none(self):
        self.asks()
        folder = os.path.join(self.corpus, answers.FOLDER)
        for name in os.listdir(folder):
            self.write('corpus/answers/' + name, '[0, "ne')
        self.assertTrue(self.asks())

    def test_a_changed_corpus_is_noticed(self):
        found = answers.Answers(self.corpus, self.program)
        found.remembered(QUESTION, lambda: [0, '', ''])
        self.assertTrue(found.are_of_now())
        self.write('corpus/sub/a.qcow2', 'written to')
        self.assertFalse(found.are_of_now())

    def test_many_that_ask_at_a_time_get_the_same(self):
        found = []
        kept = answers.Answers(self.corpus, self.program)
        threads = [threading.Thread(target=lambda: found.append(
            kept.remembered(QUESTION, lambda: [0, 'x' * 100000, '']))) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(found, [[0, 'x' * 100000, '']] * 8)

    def test_only_what_reads_is_kept(self):
        for line in ('info a', 'check --output=json -f qcow2 a', 'check a', 'snapshot -l a',
                     'info --image-opts driver=raw,file.filename=a'):
            self.assertTrue(answers.only_reads(line.split()), line)
        for line in ('check -r all a', 'check --repair=all a', 'snapshot -c x a',
                     'snapshot --delete x a', 'convert a b', 'info /elsewhere/a', 'map a',
                     'measure -O qcow2 a', ''):
            self.assertFalse(answers.only_reads(line.split()), line)


if __name__ == '__main__':
    harness.main()
