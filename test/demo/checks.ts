/** What the demonstration says, and what of it held. */
export class Checks {
  #held = 0;
  #broken = 0;

  get held(): number {
    return this.#held;
  }

  get broken(): number {
    return this.#broken;
  }

  heading(text: string): void {
    console.log(`\n${text}`);
  }

  /** One line: what was tried, and whether it held. The proof may add a detail that was seen, and throws when it fails. */
  async check(what: string, proof: () => Promise<string | undefined>): Promise<void> {
    try {
      const detail = await proof();
      this.#held++;
      console.log(`  ✓ ${what}${detail === undefined ? '' : `  (${detail})`}`);
    } catch (error) {
      this.#broken++;
      console.log(`  ✗ ${what}`);
      for (const line of String(error instanceof Error ? error.message : error)
        .split('\n')
        .slice(0, 12)) {
        console.log(`      ${line}`);
      }
    }
  }
}

export function equal(found: string, expected: string): void {
  if (found !== expected)
    throw new Error(`expected ${JSON.stringify(expected)}, found ${JSON.stringify(found)}`);
}
