#include "lib.h"

#include <dlfcn.h>
#include <stddef.h>

const char *database_load(library *l, const char *file)
{
	void *h = dlopen(file, RTLD_NOW | RTLD_LOCAL);
	if (!h)
		return file;
#define LOOK(result, name, parameters) \
	if (!(*(void **)&l->name = dlsym(h, #name))) \
		return #name;
	FUNCTIONS(LOOK)
#undef LOOK
	return NULL;
}

// Flags and limits of sqlite3.h.
enum { OPEN_READONLY = 1, LIMIT_LENGTH = 0, LIMIT_SQL_LENGTH = 1 };

int database_open(const library *l, const char *path, int longest, void **db)
{
	int err = l->sqlite3_open_v2(path, db, OPEN_READONLY, 0);
	if (!err) {
		l->sqlite3_limit(*db, LIMIT_LENGTH, longest);
		l->sqlite3_limit(*db, LIMIT_SQL_LENGTH, 65536);
		err = l->sqlite3_busy_timeout(*db, 2000);
	}
	return err;
}

void database_close(const library *l, void *db)
{
	l->sqlite3_close_v2(db);
}

const char *database_error(const library *l, void *db)
{
	return l->sqlite3_errmsg(db);
}

int database_prepare(const library *l, void *db, const char *query, int64_t parameter, void **statement)
{
	int err = l->sqlite3_prepare_v2(db, query, -1, statement, 0);
	return err ? err : l->sqlite3_bind_int64(*statement, 1, parameter);
}

int database_step(const library *l, void *statement)
{
	return l->sqlite3_step(statement);
}

void database_finalize(const library *l, void *statement)
{
	l->sqlite3_finalize(statement);
}

int64_t database_int(const library *l, void *statement, int column)
{
	return l->sqlite3_column_int64(statement, column);
}

const void *database_blob(const library *l, void *statement, int column, int *n)
{
	const void *b = l->sqlite3_column_blob(statement, column);
	*n = l->sqlite3_column_bytes(statement, column);
	return b;
}
