import type { Form } from '../findings/index.ts';

export type CheckOptions = {
  repo: string;
  config: string[];
  trust?: string;
  environment?: string;
  base?: string;
  head: string;
  remote: string;
  fetch: boolean;
  output: Form;
  report?: string[];
  all?: boolean;
  failOnWarn?: boolean;
  explain?: string;
  trace?: boolean;
  manifests?: string[];
  policy?: string[];
  data?: string[];
  parameters?: string[];
  combine?: boolean;
};
