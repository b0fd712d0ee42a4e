/**
 * Takes what happened in environments, tells it to Slack, Teams, e-mail, webhooks, Alertmanager and commit statuses.
 * Each thing once; tried again for a while, and then given up with a line in the log: the ledger is the record, this is
 * not.
 */

export { sendMail } from './mail.ts';
export { Notifications } from './notifications.ts';
export { readSecret, signatureHeaders } from './secret.ts';
