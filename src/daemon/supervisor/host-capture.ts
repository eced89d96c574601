import type { Config } from '../../config/schema.ts';
import type { Poller } from '../../io/poller.ts';
import type { Log } from '../../telemetry/log.ts';
import { FallbackFiles } from '../interception/fallback-files.ts';
import { InterceptionDriver } from '../interception/interception-driver.ts';
import { findUser } from '../user.ts';
import { DisabledFile } from './disabled-file.ts';
import { ExemptionWatch } from './exemptions.ts';
import type { Naming } from './naming.ts';
import { Observer } from './observer.ts';

interface HostCaptureOptions {
  readonly log: Log;
  readonly poller: Poller;
  readonly naming: Naming;
  /** Why nothing is intercepted that should be; undefined when all is well. */
  onHealth(problem: string | undefined): void;
  /** The destinations of this version of the catalogue are redirected now. */
  onApplied(version: number): void;
  /** Others than before are never intercepted; the workers have to know. */
  callersChanged(): void;
}

/** What of this host's traffic is intercepted: the rules, and the files, names and people that have a say in them. */
export class HostCapture {
  readonly interception: InterceptionDriver;
  readonly fallback: FallbackFiles;
  readonly exemptions: ExemptionWatch;
  readonly observer: Observer;
  readonly #disabled: DisabledFile;

  constructor(config: Config, options: HostCaptureOptions) {
    const { log, poller, naming, onHealth, onApplied, callersChanged } = options;
    this.interception = new InterceptionDriver({
      config,
      uid: findUser(config.daemon.user).uid,
      log,
      onHealth,
      onApplied,
      onAllowList: (entries) => this.exemptions.setList(entries),
      onUnattended: (render) => this.fallback.changed(render),
    });
    this.fallback = new FallbackFiles(config.daemon.stateDirectory, log);
    this.#disabled = new DisabledFile(config.capture.disabledFile, {
      changed: (disabled) => {
        if (disabled) log.warn('disabled by the operator: new connections go direct');
        void (disabled ? this.interception.suspend('disabled') : this.interception.resume('disabled'));
      },
      failed: (reason) => log.warn({ reason }, 'capture.disabledFile'),
    });
    this.exemptions = new ExemptionWatch({
      follow: (changed) => naming.hostNames.follow(changed),
      patienceMs: config.names.resolveTimeout,
      log: log.child({ component: 'capture' }),
      changed: ({ exempt, only }) => this.interception.setExemptions(exempt, only),
      callersChanged,
    });
    this.exemptions.setOnly(config.capture.only);
    this.observer = new Observer(config, poller, log);
  }

  /** What has to happen until connections are intercepted, in order; `config`: the one in force. */
  startUp(config: () => Config): readonly (() => Promise<void> | void)[] {
    return [
      () => this.#disabled.start(),
      () => this.observer.load(),
      () => this.observer.configure(config()),
      () => this.interception.start(),
    ];
  }

  /** Everything of a new configuration but the rules: those may be refused, and come first. */
  configure(config: Config): void {
    const { capture } = config;
    this.exemptions.setOnly(capture.only);
    this.observer.configure(config);
    this.#disabled.configure(capture.disabledFile);
  }

  /** The file of the operator has no say any more: the agent ends. */
  disregardFile(): void {
    this.#disabled.stop();
  }

  /** Stops watching. The rules are the caller's: they are withdrawn first, and removed when live connections have ended. */
  async close(): Promise<void> {
    this.exemptions.stop();
    await this.observer.stop();
  }
}
