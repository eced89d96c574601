import { Packr } from 'msgpackr';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { ControlChannel, MAX_CONTROL_MESSAGE } from '../../../../src/daemon/control/channel.ts';
import { fromSupervisor } from '../../../../src/daemon/control/from-supervisor.ts';
import { fromWorker } from '../../../../src/daemon/control/from-worker.ts';
import type { ToSupervisor, ToWorker } from '../../../../src/daemon/control/messages.ts';
import { type Conversation, collector, conversation } from './conversation.ts';

const packr = new Packr({ useRecords: false });
let talk: Conversation;
let ends: Conversation['ends'];
beforeEach(async () => {
  talk = await conversation();
  ends = talk.ends;
  ends[0].on('error', () => {});
});
afterEach(() => talk.close());

function framed(body: Uint8Array, length = body.length): Buffer {
  const header = Buffer.alloc(4);
  header.writeUInt32LE(length);
  return Buffer.concat([header, body]);
}

/** The supervisor's end, and what becomes of it. */
function supervisor() {
  const got = collector<ToSupervisor>();
  let channel: ControlChannel<ToWorker, ToSupervisor> | undefined;
  const closed = new Promise<Error | undefined>((resolve) => {
    channel = new ControlChannel(ends[1], fromWorker, got.take, resolve);
  });
  return { got, closed, channel: channel! };
}

it('carries messages whole, however the bytes are cut', async () => {
  const got = collector<ToWorker>();
  new ControlChannel<ToSupervisor, ToWorker>(ends[1], fromSupervisor, got.take, () => {});
  const messages = [1, 2, 3].map((id) => ({ t: 'ping', id }));
  for (const byte of Buffer.concat(messages.map((message) => framed(packr.pack(message))))) {
    ends[0].write(Buffer.of(byte));
    await new Promise(setImmediate);
  }
  await got.until((items) => items.length === 3);
  expect(got.items).toEqual(messages);
});

it.each([
  ['a message beyond the bound', framed(Buffer.alloc(0), MAX_CONTROL_MESSAGE + 1)],
  ['bytes that are no message', framed(Buffer.from([0xc1]))],
  ['half a message', framed(packr.pack({ t: 'ack', version: 7 }).subarray(0, -1))],
  ['an array that is shorter than it says', framed(Buffer.from([0xdd, 1, 0xff, 0xff, 0xff]))],
  ['no object', framed(packr.pack('ack'))],
  ['no kind', framed(packr.pack({ version: 7 }))],
  ['a field that cannot be', framed(packr.pack({ t: 'ack', version: '7' }))],
])('cuts off who sends %s, and hears nothing after it', async (_what, bytes) => {
  const { got, closed } = supervisor();
  ends[0].write(
    Buffer.concat([framed(packr.pack({ t: 'ready' })), bytes, framed(packr.pack({ t: 'ready' }))]),
  );
  expect(await closed).toMatchObject({ code: 'protocol' });
  expect(got.items).toEqual([{ t: 'ready' }]);
});

it('passes over what another version may mean, but not what is no message', async () => {
  const { got, closed, channel } = supervisor();
  channel.strict = false;
  for (const message of [{ t: 'ack', version: 'seven' }, { t: 'later' }, { t: 'ready' }])
    ends[0].write(framed(packr.pack(message)));
  await got.until((items) => items.length === 1);
  expect(got.items).toEqual([{ t: 'ready' }]);
  ends[0].write(framed(Buffer.from([0xc1])));
  expect(await closed).toMatchObject({ code: 'protocol' });
});
