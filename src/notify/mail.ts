import { createTransport, type SendMailOptions } from 'nodemailer';
import { CountersignError, messageOf, type Notifier } from '../model/index.ts';
import { readSecret } from './secret.ts';

/** The mail server, and from whom to whom. */
export type Email = Extract<Notifier['spec']['to'], { email: unknown }>['email'];

const TIMEOUT_MS = 10_000;

/** Hands one mail to the mail server. Throws `forge-unreachable`, to be tried again, and `key-missing`. */
export async function sendMail(
  { smtp, from, to, username, passwordFile }: Email,
  mail: Pick<SendMailOptions, 'subject' | 'text' | 'attachments'>,
): Promise<void> {
  const auth = username === undefined || passwordFile === undefined ? {} : { auth: { user: username, pass: readSecret(passwordFile) } };
  const transport = createTransport({ url: smtp, connectionTimeout: TIMEOUT_MS, socketTimeout: TIMEOUT_MS, ...auth });
  await transport
    .sendMail({ from, to: [...to], ...mail })
    .catch((cause) => {
      throw new CountersignError('forge-unreachable', `the mail server does not take it: ${messageOf(cause)}`, { recover: 'retry' });
    })
    .finally(() => transport.close());
}
