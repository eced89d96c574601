import { parentPort } from 'node:worker_threads';
import { type PolicyFile, readPolicies } from './reading.ts';

/*
 * The program of the thread that reads policy files (reader.ts starts it): one request, one answer.
 */

const port = parentPort;
if (port === null) throw new Error('this program runs as a thread');

port.on('message', (files: readonly PolicyFile[]) => port.postMessage(readPolicies(files)));
