// Preloaded into a service: its clock is off by as many milliseconds as the file CLOCK_FILE says just now.
import { readFileSync } from 'node:fs';

const RealDate = Date;
const now = () => {
  try {
    return RealDate.now() + Number(readFileSync(process.env.CLOCK_FILE, 'utf8'));
  } catch {
    return RealDate.now();
  }
};
globalThis.Date = class extends RealDate {
  constructor(...args) {
    if (args.length === 0) super(now());
    else super(...args);
  }
  static now() {
    return now();
  }
};
