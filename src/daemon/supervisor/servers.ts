import { adminSocket } from '../../admin/api.ts';
import { type AdminServer, serveAdmin, serveMetrics } from '../../admin/server.ts';
import type { Config } from '../../config/schema.ts';
import { type AdminView, SupervisorAdmin } from './admin-backend.ts';
import type { SupervisorMetrics } from './supervisor-metrics.ts';

/** Where the agent is asked: the admin API on its unix socket, and the metrics endpoint. */
export class Servers {
  readonly #view: AdminView;
  readonly #metrics: SupervisorMetrics;
  readonly #admin: SupervisorAdmin;
  readonly #open: AdminServer[] = [];

  constructor(view: AdminView, metrics: SupervisorMetrics) {
    this.#view = view;
    this.#metrics = metrics;
    this.#admin = new SupervisorAdmin(view);
  }

  async serveAdmin({ daemon }: Config): Promise<void> {
    this.#open.push(await serveAdmin(adminSocket(daemon.runtimeDirectory), this.#admin));
  }

  async serveMetrics({ telemetry: { metricsListen } }: Config): Promise<void> {
    if (metricsListen === 'off') return;
    const { contentType } = this.#metrics;
    const source = { contentType, text: () => this.#text() };
    this.#open.push(await serveMetrics(metricsListen, this.#admin, source));
  }

  async close(): Promise<void> {
    await Promise.all(this.#open.map((server) => server.close()));
  }

  #text(): Promise<string> {
    const { knowledge, workers, interception, exemptions, observer, policies, certificateExpiresAt } =
      this.#view;
    const { ready } = this.#view.readiness;
    const state = {
      ...{ ready, knowledge, workers, interception, exemptions, observer },
      ...{ policies, certificateExpiresAt },
    };
    return this.#metrics.text(state);
  }
}
