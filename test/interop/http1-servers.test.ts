import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createServer, type Server } from 'node:http';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { lastChunkText, writeChunk } from '../../src/http1/chunk-writer.ts';
import { requestHeadText } from '../../src/http1/head-writer.ts';
import { generate, random } from '../fuzz/http1.generate.ts';
import { Running, waitFor } from '../support/process.ts';
import { readRequests } from '../unit/http1/record.ts';

/*
 * Whatever the HTTP/1.1 codec accepts and writes again, nginx, HAProxy and node see as the same one request: each says what
 * it saw, and a second request right behind it is the next thing that it reads.
 */

const REQUESTS = 1000;
const seed = Number(process.env['MESH_FUZZ_SEED'] ?? Date.now() % 2 ** 31);
const LAST = 'GET /last HTTP/1.1\r\nhost: last.example\r\nconnection: close\r\n\r\n';

const directory = mkdtempSync(join(tmpdir(), 'mesh-http1-'));
const socket = (name: string): string => join(directory, `${name}.sock`);
const running: Running[] = [];
let node: Server;

const nginx = `daemon off; worker_processes 1; user root; pid ${directory}/nginx.pid; error_log stderr;
events {}
http {
  access_log off;
  ${['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi'].map((kind) => `${kind}_temp_path ${directory}/${kind};`).join(' ')}
  server {
    listen unix:${socket('nginx')};
    location / { return 200 "$request_method $request_uri $http_host\\n"; }
  }
}
`;
const haproxy = `defaults
  mode http
  timeout client 10s
  timeout server 10s
  timeout connect 10s
frontend all
  bind ${socket('haproxy')}
  http-request return status 200 content-type text/plain lf-string "%[method] %[pathq] %[req.hdr(host)]\\n"
`;

/** A request as it is sent on, and what a server has to say about it. */
interface Sent {
  readonly bytes: Buffer;
  readonly method: string;
  readonly line: string;
}

/** Requests that the codec accepted out of generated input, as it writes them. */
function accepted(): Sent[] {
  const next = random(seed);
  const sent: Sent[] = [];
  while (sent.length < REQUESTS) {
    const { heads, messages } = readRequests(generate(next, 'request'));
    for (const [index, message] of messages.entries()) {
      const head = heads[index]!;
      // nginx knows neither of these three.
      const elsewhere = head.method === 'CONNECT' || head.method === 'TRACE' || head.path === '*';
      if (!message.complete || elsewhere) continue;
      const authority = head.authority === '' ? 'a.example' : head.authority;
      let content = Buffer.from(message.content, 'latin1');
      if (head.framing.kind === 'chunked') {
        const out = Buffer.alloc(content.length + 32);
        const chunk = out.subarray(0, content.length === 0 ? 0 : writeChunk(out, 0, content));
        content = Buffer.concat([chunk, Buffer.from(lastChunkText())]);
      }
      const text = Buffer.from(requestHeadText(head, { authority }), 'latin1');
      const line = `${head.method} ${head.path} ${authority}\n`;
      sent.push({ bytes: Buffer.concat([text, content]), method: head.method, line });
    }
  }
  return sent;
}

/** Sends the request and another one behind it; returns everything that came until the server closed. */
function answers(path: string, { bytes }: Sent): Promise<string> {
  return new Promise((resolve, reject) => {
    const parts: Buffer[] = [];
    const client = connect(path, () => client.write(Buffer.concat([bytes, Buffer.from(LAST)])));
    client.on('data', (part) => parts.push(part));
    client.on('end', () => resolve(Buffer.concat(parts).toString('latin1')));
    client.on('error', reject);
  });
}

beforeAll(async () => {
  writeFileSync(join(directory, 'nginx.conf'), nginx);
  writeFileSync(join(directory, 'haproxy.cfg'), haproxy);
  running.push(
    new Running('nginx', ['nginx', '-e', 'stderr', '-c', join(directory, 'nginx.conf')]),
    new Running('haproxy', ['haproxy', '-db', '-f', join(directory, 'haproxy.cfg')]),
  );
  node = createServer((request, response) => {
    request.resume();
    request.on('end', () => response.end(`${request.method} ${request.url} ${request.headers.host}\n`));
  });
  await new Promise<void>((done) => node.listen(socket('node'), done));
  for (const [index, name] of ['nginx', 'haproxy'].entries()) {
    const probe = { bytes: Buffer.alloc(0), method: 'GET', line: '' };
    await waitFor(`${name} answers`, async () => (await answers(socket(name), probe)).includes('GET /last'), {
      alive: running[index]!,
    });
  }
});
afterAll(async () => {
  await Promise.all(running.map((each) => each.stop()));
  node.close();
  rmSync(directory, { recursive: true });
});

describe(`${REQUESTS} generated requests, seed ${seed}`, () => {
  test.each(['nginx', 'haproxy', 'node'])('are the same ones to %s', async (name) => {
    let refused = 0;
    for (const sent of accepted()) {
      const text = await answers(socket(name), sent);
      const said = `${JSON.stringify(sent.bytes.toString('latin1'))}: ${text}`;
      if (name === 'nginx' && text.startsWith('HTTP/1.1 400 ')) {
        // It takes no host with two dots in a row, and no Expect twice: RFC 9110 allows both. What matters is that it reads
        // nothing else in their place, and nothing behind them.
        expect(text.match(/^HTTP\/1\.1 \d\d\d/gm), said).toHaveLength(1);
        expect(text, said).not.toContain('last.example');
        refused++;
        continue;
      }
      expect(text.match(/^HTTP\/1\.1 [2-5]\d\d/gm), said).toEqual(['HTTP/1.1 200', 'HTTP/1.1 200']);
      expect(text, said).toContain('GET /last last.example\n');
      if (sent.method !== 'HEAD') expect(text, said).toContain(sent.line);
    }
    expect(refused, 'few are refused').toBeLessThan(REQUESTS / 50);
  });
});
