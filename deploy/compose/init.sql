-- The university's database, run once by the postgres image when its volume is
-- empty. The password is the one docker-compose.yml gives to cdc by default.

CREATE ROLE cdc LOGIN REPLICATION CREATEROLE PASSWORD 'cdc'; -- CREATEROLE: for the roles of the event store
GRANT CREATE ON DATABASE university TO cdc; -- to make publications and the event store

CREATE TABLE students (
    id     integer GENERATED ALWAYS AS IDENTITY (START WITH 1000) PRIMARY KEY,
    name   text NOT NULL,
    email  text NOT NULL UNIQUE,
    joined date NOT NULL DEFAULT current_date
);

CREATE TABLE courses (
    id       text         PRIMARY KEY,
    title    text         NOT NULL,
    capacity integer      NOT NULL CHECK (capacity > 0),
    credits  numeric(4,1) NOT NULL
);

CREATE TABLE enrolments (
    student_id  integer     NOT NULL REFERENCES students ON DELETE CASCADE,
    course_id   text        NOT NULL REFERENCES courses,
    enrolled_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (student_id, course_id)
);

CREATE TABLE waiting_list (
    course_id  text        NOT NULL REFERENCES courses,
    student_id integer     NOT NULL REFERENCES students ON DELETE CASCADE,
    position   integer     NOT NULL,
    since      timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (course_id, student_id)
);

-- What was said stays when the student leaves: no foreign keys.
CREATE TABLE feedback (
    id         bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    student_id integer     NOT NULL,
    course_id  text        NOT NULL,
    body       text        NOT NULL,
    at         timestamptz NOT NULL DEFAULT now()
);

INSERT INTO students (name, email) VALUES
    ('Ada Lovelace', 'ada@example.org'),
    ('Edgar Codd', 'edgar@example.org'),
    ('Grace Hopper', 'grace@example.org');
INSERT INTO courses VALUES
    ('ddia', 'Designing Data-Intensive Applications', 2, 6.0),
    ('logic', 'Mathematical Logic', 30, 9.0);
INSERT INTO enrolments (student_id, course_id) VALUES (1000, 'ddia'), (1001, 'ddia'), (1002, 'logic');
INSERT INTO waiting_list (course_id, student_id, position) VALUES ('ddia', 1002, 1);

-- To copy the rows that are there, and to make a publication of the tables:
-- only their owner may (CREATE PUBLICATION).
GRANT USAGE ON SCHEMA public TO cdc;
ALTER TABLE students OWNER TO cdc;
ALTER TABLE courses OWNER TO cdc;
ALTER TABLE enrolments OWNER TO cdc;
ALTER TABLE waiting_list OWNER TO cdc;
ALTER TABLE feedback OWNER TO cdc;
