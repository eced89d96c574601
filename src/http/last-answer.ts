import type { Channel } from '../io/channel.ts';
import type { RequestEndReason } from '../model/request.ts';
import { localAnswerText } from './local-answer.ts';
import type { MessageWriter } from './message-writer.ts';
import type { RequestJournal } from './request-journal.ts';

/** Answers by the agent itself, as the last thing that is said on a connection, and writes the request down. */
export function lastAnswer(
  { client, answers }: { readonly client: Channel; readonly answers: MessageWriter },
  journal: RequestJournal,
  status: number,
  reason: RequestEndReason,
  detail: string | undefined,
): void {
  const text = localAnswerText({ status, reason, detail, withoutContent: false, connection: 'close' });
  journal.status = status;
  journal.responseBytes = text.content.length;
  answers.begin(client, text.head + text.content, false);
  answers.flush();
  journal.finish(reason, detail);
}
