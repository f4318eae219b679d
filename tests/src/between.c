/* A PAM module of the tests that stands behind pam_portcullis.so and gets in its way. */
#include <security/pam_modules.h>
#include <security/pam_appl.h>
#include <stddef.h>
#include <string.h>

typedef void (*delay_fn)(int, unsigned, void *);

static pam_handle_t *chained;
static delay_fn before;

static void nothing(int status, unsigned usec, void *appdata)
{
	(void)status;
	(void)usec;
	(void)appdata;
}

/* Calls the function it found and puts it back. */
static void chain(int status, unsigned usec, void *appdata)
{
	pam_handle_t *pamh = chained;
	delay_fn found = before;
	if (found)
		found(status, usec, appdata);
	pam_set_item(pamh, PAM_FAIL_DELAY, (const void *)found);
}

/* An attempt inside this one, for the same user, by the same conversation. */
static int nest(pam_handle_t *pamh, const char *service)
{
	const void *user = NULL, *conversation = NULL;
	pam_handle_t *inner = NULL;
	int code = pam_get_item(pamh, PAM_USER, &user);
	if (code == PAM_SUCCESS)
		code = pam_get_item(pamh, PAM_CONV, &conversation);
	if (code == PAM_SUCCESS)
		code = pam_start(service, user, conversation, &inner);
	if (code != PAM_SUCCESS)
		return code;
	code = pam_authenticate(inner, 0);
	pam_end(inner, code);
	return code;
}

/* PAM_INCOMPLETE the first time on a handle, `code` the second. */
static int later(pam_handle_t *pamh, int code)
{
	static char seen;
	const void *data = NULL;
	if (pam_get_data(pamh, "between", &data) == PAM_SUCCESS)
		return code;
	pam_set_data(pamh, "between", &seen, NULL);
	return PAM_INCOMPLETE;
}

int pam_sm_authenticate(pam_handle_t *pamh, int flags, int argc, const char **argv)
{
	const char *word = argc > 0 ? argv[0] : "";
	(void)flags;
	if (!strcmp(word, "replace"))
		return pam_set_item(pamh, PAM_FAIL_DELAY, (const void *)nothing) ? PAM_SYSTEM_ERR : PAM_IGNORE;
	if (!strcmp(word, "remove"))
		return pam_set_item(pamh, PAM_FAIL_DELAY, NULL) ? PAM_SYSTEM_ERR : PAM_IGNORE;
	if (!strcmp(word, "chain")) {
		const void *found = NULL;
		pam_get_item(pamh, PAM_FAIL_DELAY, &found);
		chained = pamh;
		before = (delay_fn)found;
		return pam_set_item(pamh, PAM_FAIL_DELAY, (const void *)chain) ? PAM_SYSTEM_ERR : PAM_IGNORE;
	}
	if (!strncmp(word, "nest=", 5))
		return nest(pamh, word + 5);
	if (!strcmp(word, "later_right"))
		return later(pamh, PAM_SUCCESS);
	if (!strcmp(word, "later_wrong"))
		return later(pamh, PAM_AUTH_ERR);
	return PAM_SERVICE_ERR;
}

int pam_sm_setcred(pam_handle_t *pamh, int flags, int argc, const char **argv)
{
	(void)pamh;
	(void)flags;
	(void)argc;
	(void)argv;
	return PAM_IGNORE;
}
