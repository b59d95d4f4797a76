// The functions of libsqlite3 that the package calls, looked up in the machine's library
// at run time. All types of the library are opaque here.
#ifndef P11FS_SQLITE_H
#define P11FS_SQLITE_H

#include <stdint.h>

// FUNCTIONS calls F(result, name, parameters) for each function.
#define FUNCTIONS(F) \
	F(int, sqlite3_open_v2, (const char *, void **, int, const char *)) \
	F(int, sqlite3_close_v2, (void *)) \
	F(const char *, sqlite3_errmsg, (void *)) \
	F(int, sqlite3_limit, (void *, int, int)) \
	F(int, sqlite3_busy_timeout, (void *, int)) \
	F(int, sqlite3_prepare_v2, (void *, const char *, int, void **, const char **)) \
	F(int, sqlite3_bind_int64, (void *, int, int64_t)) \
	F(int, sqlite3_step, (void *)) \
	F(int, sqlite3_finalize, (void *)) \
	F(int64_t, sqlite3_column_int64, (void *, int)) \
	F(const void *, sqlite3_column_blob, (void *, int)) \
	F(int, sqlite3_column_bytes, (void *, int))

typedef struct {
#define POINTER(result, name, parameters) result (*name) parameters;
	FUNCTIONS(POINTER)
#undef POINTER
} library;

// Results of the library (sqlite3.h).
enum { DONE = 101, ROW = 100 };

// database_load fills in the functions. It returns the name of what is missing, or NULL.
const char *database_load(library *l, const char *file);

int database_open(const library *l, const char *path, int longest, void **db);
void database_close(const library *l, void *db);
const char *database_error(const library *l, void *db);
int database_prepare(const library *l, void *db, const char *query, int64_t parameter, void **statement);
int database_step(const library *l, void *statement);
void database_finalize(const library *l, void *statement);
int64_t database_int(const library *l, void *statement, int column);
const void *database_blob(const library *l, void *statement, int column, int *n);

#endif
