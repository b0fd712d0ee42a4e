import { type Agent, request } from 'node:https';

export type Answer = { readonly response: { readonly allowed: boolean; readonly status?: { readonly code: number } } };

/** Sends one AdmissionReview to a webhook on this machine. Rejects where the answer is none. */
export function askAdmission(agent: Agent, port: number, body: string): Promise<Answer> {
  return new Promise((resolve, reject) => {
    const options = { method: 'POST', agent, headers: { 'content-type': 'application/json' } };
    const sent = request(`https://127.0.0.1:${port}/validate`, options, (response) => {
      let text = '';
      response.on('data', (d) => (text += d));
      response.on('end', () => {
        try {
          resolve(JSON.parse(text) as Answer);
        } catch {
          reject(new Error(`${response.statusCode}: ${text.slice(0, 200)}`));
        }
      });
    });
    sent.on('error', reject);
    sent.end(body);
  });
}
