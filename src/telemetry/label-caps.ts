import { cappedLabels } from './definitions.ts';

/** Most distinct values of a label that comes from outside; the rest is counted as `other`. */
export const MOST_LABEL_VALUES = 1000;

/** Lets through at most {@link MOST_LABEL_VALUES} distinct values; those after them become `other`. */
export class LabelCap {
  readonly #known = new Set<string>();
  readonly #most: number;

  constructor(most: number = MOST_LABEL_VALUES) {
    this.#most = most;
  }

  of(value: string): string {
    if (this.#known.has(value)) return value;
    if (this.#known.size >= this.#most) return 'other';
    this.#known.add(value);
    return value;
  }
}

/** A {@link LabelCap} for each label whose values come from outside; others pass as they are. */
export class LabelCaps {
  readonly #caps = new Map<string, LabelCap>();

  /** The values of `labels` as they are counted. */
  of(labels: readonly string[], values: readonly string[]): string[] {
    return values.map((value, i) => this.#capped(labels[i]!, value));
  }

  #capped(label: string, value: string): string {
    if (!cappedLabels.has(label)) return value;
    let cap = this.#caps.get(label);
    if (cap === undefined) {
      cap = new LabelCap();
      this.#caps.set(label, cap);
    }
    return cap.of(value);
  }
}
