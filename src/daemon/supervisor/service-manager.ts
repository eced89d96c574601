import { type ServiceNotifier, watchdogInterval } from '../../io/notify.ts';

interface SignalHandlers {
  stop(): void;
  reload(): void;
  /** The files of the log were moved away. */
  reopenLogs(): void;
}

/** What operators and service managers say to a daemon. */
export function handleSignals({ stop, reload, reopenLogs }: SignalHandlers): void {
  process.on('SIGTERM', stop);
  process.on('SIGINT', stop);
  process.on('SIGHUP', reload);
  process.on('SIGUSR1', reopenLogs);
}

/** Gives the service manager signs of life where it wants them. `upgraded`: this image is not the first one. */
export function feedWatchdog(notifier: ServiceNotifier, upgraded: boolean): void {
  const interval = watchdogInterval(process.env, process.pid);
  if (interval === undefined) return;
  // The image before this one asked for more patience.
  if (upgraded) notifier.patience(interval * 2);
  setInterval(() => notifier.tell('watchdog'), interval).unref();
}
