package storage

import (
	"context"
)

// some is a condition that holds for the first rows of a table, up to a limit,
// in the order given: the arguments of where come first, then the limit. It goes
// by where rows lie, so that the plan is the same whatever the planner believes,
// and a row that is changed meanwhile is left alone.
func (db *DB) some(table, where, order string) string {
	if db.dialect == "sqlite" {
		return "rowid IN (SELECT rowid FROM " + table + " WHERE " + where + " ORDER BY " + order + " LIMIT ?)"
	}
	return "ctid = ANY (ARRAY(SELECT ctid FROM " + table + " WHERE " + where + " ORDER BY " + order + " LIMIT ?))"
}

// deleteSome removes the first rows of a table for which where holds, and returns
// how many went: fewer than limit where none is left.
func (db *DB) deleteSome(ctx context.Context, limit int, table, where, order string, args ...any) (int, error) {
	r := db.g(ctx).Exec("DELETE FROM "+table+" WHERE "+db.some(table, where, order), append(args, limit)...)
	return int(r.RowsAffected), mapErr(r.Error)
}
