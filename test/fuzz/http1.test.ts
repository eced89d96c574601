import { expect, test } from 'vitest';
import { lastChunkText, writeChunk } from '../../src/http1/chunk-writer.ts';
import { requestHeadText, responseHeadText } from '../../src/http1/head-writer.ts';
import type { RequestHead } from '../../src/http1/request-head.ts';
import { type Message, readRequests, readResponse } from '../unit/http1/record.ts';
import { cutsFor, generate, random } from './http1.generate.ts';
import { readWithNode } from './http1.llhttp.ts';

const RUNS = Number(process.env['MESH_FUZZ_RUNS'] ?? 10_000);
const seed = Number(process.env['MESH_FUZZ_SEED'] ?? Date.now() % 2 ** 31);

/**
 * Whatever the codec tells, node tells as well: the same heads, the same content, the same ends. `toHead`: these are
 * answers to HEAD, which node learns only after it has judged whether the connection lives on.
 */
function expectNoMoreLenient(ours: readonly Message[], nodes: readonly Message[], toHead = false): void {
  for (const [index, message] of ours.entries()) {
    const theirs = nodes[index];
    expect(theirs, 'a message that node does not take').toBeDefined();
    if (theirs === undefined) return;
    const { first, minor, fields } = theirs;
    expect({ first: message.first, minor: message.minor, fields: message.fields }).toEqual({
      first,
      minor,
      fields,
    });
    // Node may close where the codec would go on, but never takes for two messages what the codec takes for one.
    if (message.keepAlive && !toHead) expect(theirs.keepAlive).toBe(true);
    if (!message.complete) {
      const prefix = message.content.startsWith(theirs.content) || theirs.content.startsWith(message.content);
      expect(prefix, 'other content').toBe(true);
      return;
    }
    expect(theirs.complete, 'a message that node does not see the end of').toBe(true);
    expect(message.content).toBe(theirs.content);
    expect(message.trailers).toEqual(theirs.trailers);
  }
}

/** The request as it is sent on, its content in pieces where it was chunked. */
function sentOn(head: RequestHead, message: Message): Buffer {
  const authority = head.authority === '' ? 'a.example' : head.authority;
  const text = requestHeadText(head, { authority });
  const content = Buffer.from(message.content, 'latin1');
  if (head.framing.kind !== 'chunked') return Buffer.concat([Buffer.from(text, 'latin1'), content]);
  const out = Buffer.alloc(content.length + 64);
  let end = 0;
  for (let at = 0; at < content.length; at += 7)
    end = writeChunk(out.subarray(0), end, content.subarray(at, at + 7));
  return Buffer.concat([Buffer.from(text, 'latin1'), out.subarray(0, end), Buffer.from(lastChunkText())]);
}

test(`${RUNS} generated requests, seed ${seed}`, () => {
  console.log(`http1 seed ${seed}`);
  const next = random(seed);
  let refused = 0;
  let complete = 0;
  for (let run = 0; run < RUNS; run++) {
    const bytes = generate(next, 'request');
    const whole = readRequests(bytes);
    try {
      expect({ ...readRequests(bytes, cutsFor(next, bytes.length)), heads: [] }).toEqual({
        ...whole,
        heads: [],
      });
      expectNoMoreLenient(whole.messages, readWithNode(bytes).messages);
      for (const [index, message] of whole.messages.entries()) {
        if (message.complete) expectOneRequest(whole.heads[index]!, message);
      }
    } catch (error) {
      console.error(JSON.stringify(bytes.toString('latin1')));
      throw error;
    }
    if (whole.refusal !== undefined) refused++;
    complete += whole.messages.filter((message) => message.complete).length;
  }
  // Both kinds must occur, or the generator tests nothing.
  expect(refused).toBeGreaterThan(RUNS / 5);
  expect(complete).toBeGreaterThan(RUNS / 5);
});

/** What stands behind sees exactly one request, and the one that was read here. */
function expectOneRequest(head: RequestHead, message: Message): void {
  const sent = sentOn(head, message);
  const seen = readWithNode(sent);
  expect(seen.refusal).toBeUndefined();
  expect(seen.messages.length).toBe(1);
  const [only] = seen.messages;
  const target = head.method === 'CONNECT' ? head.authority : head.path;
  expect(only).toMatchObject({ first: `${head.method} ${target}`, content: message.content, complete: true });
  const hosts = only!.fields.filter(([name]) => name.toLowerCase() === 'host');
  expect(hosts).toEqual([['host', head.authority === '' ? 'a.example' : head.authority]]);
  const again = readRequests(sent);
  expect(again).toMatchObject({ refusal: undefined, rest: '' });
  expect(again.messages.length).toBe(1);
}

test(`${RUNS} generated answers, seed ${seed}`, () => {
  const next = random(seed + 1);
  let refused = 0;
  let complete = 0;
  for (let run = 0; run < RUNS; run++) {
    const bytes = generate(next, 'response');
    const asked = {
      method: ['GET', 'GET', 'HEAD', 'CONNECT'][next(4)]!,
      upgrade: next(2) === 0 ? 'websocket, h2c' : undefined,
    };
    const whole = readResponse(bytes, asked);
    try {
      const cut = readResponse(bytes, asked, cutsFor(next, bytes.length));
      // What came behind an answer in a piece of its own was not asked for: refused, not just left.
      const surplus = cut.refusal === 'unasked-response';
      if (!surplus) expect(cut.rest).toBe(whole.rest);
      expect(cut.messages).toEqual(whole.messages);
      if (!surplus) expect(cut.refusal).toBe(whole.refusal);
      else expect(whole.rest).not.toBe('');
      expectNoMoreLenient(
        whole.messages,
        readWithNode(bytes, asked.method).messages,
        asked.method === 'HEAD',
      );
      for (const [index, message] of whole.messages.entries()) {
        const head = whole.heads[index]!;
        if (!message.complete || head.interim) continue;
        const kind = head.framing.kind;
        let text = responseHeadText(head, {});
        if (kind === 'chunked') {
          const out = Buffer.alloc(message.content.length + 32);
          const content = Buffer.from(message.content, 'latin1');
          if (content.length > 0) text += out.toString('latin1', 0, writeChunk(out, 0, content));
          text += lastChunkText();
        } else if (kind !== 'opaque') text += message.content;
        const seen = readWithNode(Buffer.from(text, 'latin1'), asked.method);
        expect(seen.refusal).toBeUndefined();
        expect(seen.messages).toMatchObject([{ content: message.content, complete: true }]);
      }
    } catch (error) {
      console.error(JSON.stringify([asked, bytes.toString('latin1')]));
      throw error;
    }
    if (whole.refusal !== undefined) refused++;
    complete += whole.messages.filter((message) => message.complete).length;
  }
  expect(refused).toBeGreaterThan(RUNS / 5);
  expect(complete).toBeGreaterThan(RUNS / 5);
});
