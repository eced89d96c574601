import { parentPort } from 'node:worker_threads';
import { DocumentError, parseCatalogueDocument } from './document.ts';
import { type Answer, piecesOf, type Request } from './document-pieces.ts';

/*
 * The program of the thread that reads catalogue files (document-thread.ts starts it): one request, one answer. The
 * next piece is asked for, not pushed, because a port hands over everything that waits in it within one turn.
 */

const port = parentPort;
if (port === null) throw new Error('this program runs as a thread');
let pieces = piecesOf({ services: [], nodes: [] });
let next = pieces.next();

port.on('message', (request: Request) => port.postMessage(answer(request)));

function answer(request: Request): Answer {
  if (request !== 'next') {
    try {
      pieces = piecesOf(parseCatalogueDocument(request.bytes));
      next = pieces.next();
    } catch (error) {
      return { mistakes: error instanceof DocumentError ? error.mistakes : [`1:1: ${String(error)}`] };
    }
  }
  const piece = next.value ?? { services: [], nodes: [] };
  next = pieces.next();
  return { piece, last: next.done === true };
}
