import { setTimeout as pause } from 'node:timers/promises';
import type { Command } from 'commander';
import type { EventAnswer, EventsAnswer } from '../admin/api.ts';
import { type CliContext, configOf, print } from './context.ts';
import { DaemonClient } from './daemon-client.ts';
import { table } from './table.ts';

/** How often `--follow` asks. */
const FOLLOW_MS = 1000;

/** `events [--follow]`. */
export function addEventsCommand(program: Command, context: CliContext): void {
  program
    .command('events')
    .option('-f, --follow', 'go on, and print what comes')
    .option('-o, --output <format>', 'table or json', 'table')
    .option('-l, --limit <number>', 'events that are shown, the newest ones', '100')
    .description('show what happened: breakers, ejections, refused policies, workers that were replaced')
    .action(async (options: { readonly follow?: boolean; readonly limit: string }, command: Command) => {
      const client = new DaemonClient(configOf(command, context).daemon.runtimeDirectory);
      const { limit } = options;
      let answer = await client.get<EventsAnswer>('/v1/events', { limit });
      print(command, context, answer, () => eventsText(answer.events, context.columns));
      while (options.follow === true) {
        const after = answer.events.at(-1)?.sequence ?? 0;
        await pause(FOLLOW_MS);
        const news = await client.get<EventsAnswer>('/v1/events', { after: String(after), limit });
        if (news.events.length === 0) continue;
        answer = news;
        print(command, context, answer, () =>
          news.events.map((event) => `${lineOf(event).join('  ')}\n`).join(''),
        );
      }
    });
}

function eventsText(events: readonly EventAnswer[], width: number | undefined): string {
  if (events.length === 0) return 'nothing has happened\n';
  const columns = ['TIME', 'PROCESS', 'KIND', 'SERVICE', 'EVENT'].map((title) => ({ title }));
  return table(columns, events.map(lineOf), width);
}

function lineOf({ at, process, kind, service, instance, text }: EventAnswer): string[] {
  const subject = service === undefined ? '-' : instance === undefined ? service : `${service}/${instance}`;
  return [new Date(at).toISOString(), process, kind, subject, text];
}
